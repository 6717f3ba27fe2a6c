"""Scored texts adapter: rows of whole dialogues and a score of each.

Domain-specific preference (Linear95/DSP) publishes its cleaned HH and WebGPT in
this form, with the test sets that MORE evaluates on.
"""

import os.path
from collections.abc import Mapping
from typing import Any

from jaxalign.data.adapters import base
from jaxalign.data.records import columns

MARK = "Assistant:"  # after it an answer begins, in both of its dialects


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
  """Answers best first; the prompt is what all texts share up to an answer."""
  texts = [columns.string("text", text) for text in base.need_list(row, "text")]
  scores = [
    columns.number("score", score) for score in base.need_list(row, "score")
  ]
  if len(texts) != len(scores) or len(texts) < 2:
    raise ValueError(
      f"text and score must be two or more of each, got {len(texts)} and "
      f"{len(scores)}"
    )
  cut = os.path.commonprefix(texts).rfind(MARK)
  if cut < 0:
    raise ValueError(f"all texts must share a prompt that ends in {MARK!r}")
  cut += len(MARK)
  order = sorted(range(len(texts)), key=lambda i: -scores[i])
  return {
    "prompt": texts[0][:cut],
    "responses": [texts[i][cut:] for i in order],
    "ratings": {"overall": [scores[i] for i in order]},
    "tie": True if len(texts) == 2 and scores[0] == scores[1] else None,
  }


ADAPTERS: dict[str, base.Adapter] = {
  "scored_texts": base.Adapter(reads=("text", "score"), row=_record),
}
