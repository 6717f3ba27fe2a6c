"""Hub adapters, flat: data sets with one comparison per row."""

import math
import os.path
from collections.abc import Mapping
from typing import Any

from jaxalign.data.adapters import base
from jaxalign.data.records import columns

Row = Mapping[str, Any]

ASSISTANT = "\n\nAssistant:"
SPEAKERS = {"Human:": "user", "Assistant:": "assistant"}
ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def _hh_rlhf(row: Row) -> dict[str, Any]:
  """Two transcripts; the prompt is what they share up to an answer."""
  texts = [base.need_text(row, name) for name in ("chosen", "rejected")]
  cut = os.path.commonprefix(texts).rfind(ASSISTANT)
  if cut < 0:
    raise ValueError("chosen and rejected must share a turn of the assistant")
  cut += len(ASSISTANT)
  return {
    "prompt": texts[0][:cut],
    "chosen": texts[0][cut:],
    "rejected": texts[1][cut:],
  }


def _summaries(row: Row) -> dict[str, Any]:
  """A post or article and two summaries, the worker's choice of them."""
  info = base.need_object(row, "info")
  texts = [
    base.need_text(summary, "text")
    for summary in base.need_list(row, "summaries")
  ]
  if len(texts) != 2:
    raise ValueError(f"expected 2 summaries, got {len(texts)}")
  choice = base.index_of("choice", row.get("choice"), 2)
  if info.get("article") is not None:
    prompt = f"Article: {base.need_text(info, 'article')}"
  else:
    prompt = f"Post: {base.need_text(info, 'post')}"
  titles = {"subreddit": "Subreddit: r/", "title": "Title: "}
  given = [f"{t}{info[n]}" for n, t in titles.items() if info.get(n)]
  return {
    "prompt": "\n".join([*given, prompt, "\nTL;DR:"]),
    "chosen": f" {texts[choice].strip()}",
    "rejected": f" {texts[1 - choice].strip()}",
    "annotator": row.get("worker"),
    "id": info.get("id"),
  }


def _webgpt(row: Row) -> dict[str, Any]:
  """Two answers with opposite scores; 0 is a tie."""
  question = base.need_object(row, "question")
  scores = [base.need_number(row, f"score_{i}") for i in (0, 1)]
  answers = [base.need_text(row, f"answer_{i}") for i in (0, 1)]
  first = 0 if scores[0] >= scores[1] else 1
  return {
    "prompt": base.need_text(question, "full_text"),
    "chosen": answers[first],
    "rejected": answers[1 - first],
    "strength": abs(scores[0] - scores[1]) / 2,
    "tie": True if scores[0] == scores[1] else None,
    "group": question.get("dataset"),
    "id": question.get("id"),
  }


def _shp(row: Row) -> dict[str, Any]:
  """Two comments on a post; `labels` 1 means that A is preferred."""
  label = base.index_of("labels", row.get("labels"), 2)
  first, second = "AB" if label == 1 else "BA"
  return {
    "prompt": base.need_text(row, "history"),
    "chosen": base.need_text(row, f"human_ref_{first}"),
    "rejected": base.need_text(row, f"human_ref_{second}"),
    "strength": _log_ratio(row),
    "group": row.get("domain"),
    "id": row.get("post_id"),
  }


def _log_ratio(row: Row) -> float | None:
  """By how much the scores differ; None where there is no ratio, or a 0."""
  if row.get("score_ratio") is None:
    return None
  ratio = base.need_number(row, "score_ratio")
  if ratio < 0:
    raise ValueError(f"score_ratio must be >= 0, got {ratio}")
  return math.log(ratio) if ratio else None


def _ultra_feedback(row: Row) -> dict[str, Any]:
  """Several completions, best first by the mean of their four ratings.

  `overall_score` is left out: some of its 10s are misread 1s.
  """
  completions = base.need_list(row, "completions")
  overall = [
    base.need_number(completion, "fine-grained_score")
    for completion in completions
  ]
  order = sorted(range(len(overall)), key=lambda i: -overall[i])
  ratings = {"overall": [overall[i] for i in order]}
  for aspect in ASPECTS:
    given = [_rating(completions[i], aspect) for i in order]
    if None not in given:
      ratings[aspect] = given
  return {
    "prompt": base.need_text(row, "instruction"),
    "responses": [base.need_text(completions[i], "response") for i in order],
    "ratings": ratings,
    "tie": True if len(order) == 2 and overall[0] == overall[1] else None,
    "group": row.get("source"),
  }


def _rating(completion: Row, aspect: str) -> float | None:
  annotations = base.need_object(completion, "annotations")
  rating = base.need_object(annotations, aspect).get("Rating")
  if rating is None:
    return None
  if isinstance(rating, str):
    try:
      rating = float(rating)
    except ValueError:  # "N/A"
      return None
  return columns.number(f"Rating of {aspect}", rating)


def _strength_cleaned(row: Row) -> dict[str, Any]:
  """Lists of alternating turns and an ensemble's view of the preference."""
  return {
    "chosen": _turns(base.need_list(row, "chosen")),
    "rejected": _turns(base.need_list(row, "rejected")),
    "strength": row.get("mean preference difference"),
    "strength_std": row.get("std preference difference"),
    "judge_prob": _judged(row.get("GPT4 label")),
  }


def _judged(label: Any) -> float | None:
  """1 for chosen, 0 for rejected; -1, or no column, for no second judge."""
  if label not in (None, -1, 0, 1):
    raise ValueError(f"GPT4 label must be 1, 0 or -1, got {label}")
  return None if label in (None, -1) else float(label)


def _turns(lines: list[Any]) -> list[dict[str, str]]:
  """Turns from lines, by their `Human:` or `Assistant:`, else alternating."""
  turns = []
  for i, line in enumerate(lines):
    text = base.need_text({"turn": line}, "turn").strip()
    role = "assistant" if (len(lines) - i) % 2 else "user"
    for name, speaker in SPEAKERS.items():
      if text.startswith(name):
        role, text = speaker, text.removeprefix(name).strip()
    turns.append({"role": role, "content": text})
  return turns


_SHP_UNUSED = tuple(
  f"{name}_{side}"
  for name in ("c_root_id", "created_at_utc", "score")
  for side in "AB"
)

ADAPTERS: dict[str, base.Adapter] = {
  "Anthropic/hh-rlhf": base.Adapter(reads=("chosen", "rejected"), row=_hh_rlhf),
  "openai/summarize_from_feedback": base.Adapter(
    ignore=("batch", "split", "extra"),
    reads=("info", "summaries", "choice", "worker"),
    row=_summaries,
  ),
  "openai/webgpt_comparisons": base.Adapter(
    ignore=("quotes_0", "quotes_1", "tokens_0", "tokens_1"),
    reads=("question", "answer_0", "answer_1", "score_0", "score_1"),
    row=_webgpt,
  ),
  "stanfordnlp/SHP": base.Adapter(
    ignore=("upvote_ratio", "seconds_difference", *_SHP_UNUSED),
    reads=(
      "post_id",
      "domain",
      "history",
      "human_ref_A",
      "human_ref_B",
      "labels",
      "score_ratio",
    ),
    row=_shp,
  ),
  "openbmb/UltraFeedback": base.Adapter(
    ignore=("models", "correct_answers", "incorrect_answers"),
    reads=("source", "instruction", "completions"),
    row=_ultra_feedback,
  ),
  "fnlp/hh-rlhf-strength-cleaned": base.Adapter(
    ignore=(
      "chosen score list",
      "rejected score list",
      "chosen_score_list",
      "rejected_score_list",
    ),
    reads=(
      "chosen",
      "rejected",
      "mean preference difference",
      "std preference difference",
      "GPT4 label",
    ),
    row=_strength_cleaned,
  ),
}
