"""Adapters of reward-model benchmarks: RewardBench 1 and 2.

What a benchmark judges is in the columns of every record: `group` is its
subset, and `ratings["overall"]` says which of several responses are right.
"""

from collections.abc import Mapping
from typing import Any

from jaxalign.data.adapters import base

_OTHER_WORDS = ("chosen_model", "rejected_model", "models", "model")


def _asked(row: Mapping[str, Any]) -> list[Any]:
  """A prompt as its conversation: text is what a user says."""
  prompt = base.need(row, "prompt")
  if isinstance(prompt, str):
    return [{"role": "user", "content": prompt}]
  return base.need_list(row, "prompt")  # turns, which the reader checks


def _reward_bench(row: Mapping[str, Any]) -> dict[str, Any]:
  """One right answer against a wrong one."""
  return {
    "prompt": _asked(row),
    "chosen": base.need(row, "chosen"),
    "rejected": base.need(row, "rejected"),
    "group": base.need_label(row, "subset"),
    "id": row.get("id"),
  }


def _reward_bench_2(row: Mapping[str, Any]) -> dict[str, Any]:
  """Right answers, one but for ties, in front of wrong ones."""
  right = base.need_list(row, "chosen")
  wrong = base.need_list(row, "rejected")
  number = row.get("num_correct")
  if number is not None and number != len(right):
    raise ValueError(
      f"num_correct must be {len(right)}, the number of chosen, got {number!r}"
    )
  if not right or not wrong:
    raise ValueError(
      f"chosen and rejected must hold one or more, got {len(right)} and "
      f"{len(wrong)}"
    )
  return {
    "prompt": _asked(row),
    "responses": [*right, *wrong],
    "num_ranked": len(right),
    "ratings": {"overall": [1.0] * len(right) + [0.0] * len(wrong)},
    "group": base.need_label(row, "subset"),
    "id": row.get("id"),
  }


ADAPTERS: dict[str, base.Adapter] = {
  "allenai/reward-bench": base.Adapter(
    ignore=_OTHER_WORDS,
    reads=("prompt", "chosen", "rejected", "subset", "id"),
    row=_reward_bench,
  ),
  "allenai/reward-bench-2": base.Adapter(
    ignore=(
      *_OTHER_WORDS,
      "num_rejected",
      "total_completions",
      "additional_metadata",
    ),
    reads=("prompt", "chosen", "rejected", "subset", "id", "num_correct"),
    row=_reward_bench_2,
  ),
}
