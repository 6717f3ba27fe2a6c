"""Local adapters, ratings: files whose responses were rated or chosen."""

import re
from collections.abc import Mapping
from typing import Any

from jaxalign.data.adapters import base
from jaxalign.data.adapters.local_votes import dialogue, find, rows_by
from jaxalign.data.records import columns

Row = Mapping[str, Any]

DOMAINS = ("academy", "business", "entertainment", "literature")
# Classes of a safety rating, from safe to unsafe: "Yes" means unsafe.
UNSAFE = ("No", "Unsure", "Yes")
SPEAKERS = {
  "USER": "user",
  "A": "user",
  "LAMDA": "assistant",
  "B": "assistant",
}


def _turns(context: str) -> list[dict[str, str]]:
  """Chat turns of a conversation written as lines `A: ...`, `LAMDA: ...`."""
  # One of the two files holds the two characters \ and n for a line break.
  text = context.replace("\\n", "\n")
  start, *parts = re.split(r"^(USER|LAMDA|A|B): ?", text, flags=re.M)
  if start.strip() or not parts:
    raise ValueError("context must begin with USER:, LAMDA:, A: or B:")
  return [
    {"role": SPEAKERS[speaker], "content": said.strip()}
    for speaker, said in zip(parts[::2], parts[1::2], strict=True)
  ]


def _dices(row: Row) -> dict[str, Any]:
  """A reply with the number of raters who found it unsafe."""
  votes = base.need_object(row, "unsafe_votes")
  return {
    "prompt": _turns(base.need_text(row, "context")),
    "responses": [base.need_text(row, "response")],
    "label_votes": [base.need(votes, answer) for answer in UNSAFE],
    "source": "dices",
    "group": row.get("expert_unsafe"),
    "id": row.get("item_id"),
  }


def _dices_rater(row: Row) -> dict[str, Any]:
  """One rater's answer; the group is the locale, where there is one, or race.

  Whole numbers arrive as text, because the file is CSV.
  """
  answer = unsafe_answer(row)
  return {
    "prompt": _turns(base.need_text(row, "context")),
    "responses": [base.need_text(row, "response")],
    "label_votes": [int(answer == name) for name in UNSAFE],
    "source": "dices",
    "annotator": base.need(row, "rater_id"),
    "group": rater_group(row),
    "id": row.get("item_id"),
  }


def unsafe_answer(row: Row) -> str:
  """What a rater of DICES said to whether a reply is unsafe, one of UNSAFE."""
  answer = base.need_text(row, "Q_overall")
  if answer not in UNSAFE:
    raise ValueError(
      f"Q_overall must be one of {', '.join(UNSAFE)}, got {answer!r}"
    )
  return answer


def rater_group(row: Row) -> str | None:
  """A rater's locale, where there is one, or race."""
  groups = [row.get(name) for name in ("rater_locale", "rater_race")]
  return next((group for group in groups if group), None)


def _crehate(tables: base.Tables) -> base.Convert:
  """One person's judgement of a post: no hate, hate, cannot tell."""
  posts = rows_by(tables, "posts", ("post_id",), ("text",))
  people = rows_by(tables, "annotators", ("annotator",), ("country",))

  def convert(row: Row) -> dict[str, Any]:
    post, person = (
      base.need_label(row, name) for name in ("post_id", "annotator")
    )
    rating = base.need_text(row, "rating")
    if rating not in ("0", "1", "2"):
      raise ValueError(f"rating must be 0, 1 or 2, got {rating!r}")
    return {
      "prompt": "",
      "responses": [find(posts, "post", post)["text"]],
      "label_votes": [int(rating == str(i)) for i in range(3)],
      "source": "crehate",
      "annotator": person,
      "group": find(people, "annotator", person)["country"],
      "id": post,
    }

  return convert


def _crehate_post(row: Row) -> dict[str, Any]:
  """A post and the majority of each country as a rating of its own."""
  return {
    "prompt": "",
    "responses": [base.need_text(row, "text")],
    "ratings": dict(base.need_object(row, "country_label")),
    "source": "crehate",
    "group": row.get("source_set"),
    "id": row.get("post_id"),
  }


def _vader(row: Row) -> dict[str, Any]:
  """A snippet and how many raters gave it each mark from -4 to 4."""
  marks = base.need_list(row, "ratings")
  stray = [mark for mark in marks if mark not in range(-4, 5)]
  if stray:
    raise ValueError(f"ratings must be in -4..4, got {stray[0]!r}")
  return {
    "prompt": "",
    "responses": [base.need_text(row, "text")],
    "label_votes": [marks.count(mark) for mark in range(-4, 5)],
    "ratings": {"sentiment": base.need_number(row, "mean")},
    "source": "vader_sentiment",
    "group": row.get("domain"),
    "id": row.get("id"),
  }


def _numbers(row: Row, name: str) -> list[float]:
  return [columns.number(name, value) for value in base.need_list(row, name)]


def _cnndm(row: Row) -> dict[str, Any]:
  """A summary, its mean marks and how many people gave -1, 0, 1 overall."""
  marks = base.need_object(row, "ratings")
  means = {}
  for attribute in marks:
    given = _numbers(marks, attribute)
    if not given:
      raise ValueError(f"{attribute} must hold one mark or more, got none")
    means[attribute] = sum(given) / len(given)
  return {
    "prompt": dialogue(
      "Write a summary of the news story whose editor-written highlights are: "
      + base.need_text(row, "reference")
    ),
    "responses": [f" {base.need_text(row, 'summary')}"],
    "ratings": means,
    "label_votes": [
      base.need_list(marks, "overall").count(mark) for mark in (-1, 0, 1)
    ],
    "source": "cnndm_summaries",
    "group": row.get("system"),
    "id": row.get("id"),
  }


def _domains(row: Row) -> list[dict[str, Any]]:
  """Per domain, its own answer chosen from five."""
  answers = base.need_object(row, "responses")
  made = []
  for domain in DOMAINS:
    best = base.need_text(answers, domain)
    others = [base.need_text(answers, d) for d in answers if d != domain]
    made.append(
      {
        "prompt": dialogue(base.need_text(row, "query")),
        "responses": [f" {text}" for text in (best, *others)],
        "num_ranked": 1,
        "source": f"dsp_{domain}",
        "group": domain,
        "id": f"{base.need_label(row, 'id')}-{domain}",
      }
    )
  return made


def _candidates(row: Row) -> dict[str, Any]:
  """The candidates that the judge compared with the reference, best first."""
  texts = base.need_list(row, "candidates")
  given = base.need_list(row, "gpt4_pref")
  if len(given) != len(texts):
    raise ValueError(
      f"gpt4_pref must hold one score per candidate ({len(texts)}), got "
      f"{len(given)}"
    )
  judged = {
    i: columns.number("gpt4_pref", score)
    for i, score in enumerate(given)
    if score is not None
  }
  order = sorted(judged, key=lambda i: -judged[i])
  return {
    "prompt": dialogue(base.need_text(row, "prompt")),
    "responses": [f" {texts[i]}" for i in order],
    "ratings": {"overall": [judged[i] for i in order]},
    "source": "bon_tulu16",
    "group": row.get("dataset"),
    "id": row.get("id"),
  }


def _choices(row: Row) -> list[dict[str, Any]]:
  """Per reward model, its best of all candidates."""
  texts = base.need_list(row, "candidates")
  made = []
  for model, best in base.need_object(row, "rm_choice").items():
    best = base.index_of("rm_choice", best, len(texts))
    order = [best, *(i for i in range(len(texts)) if i != best)]
    made.append(
      {
        "prompt": dialogue(base.need_text(row, "prompt")),
        "responses": [f" {texts[i]}" for i in order],
        "num_ranked": 1,
        "source": "bon_tulu16",
        "annotator": model,
        "group": row.get("dataset"),
        "id": f"{base.need_label(row, 'id')}-{model}",
      }
    )
  return made


_DICES = base.Adapter(
  ignore=("n_raters", "ratings"),
  reads=("item_id", "context", "response", "unsafe_votes", "expert_unsafe"),
  row=_dices,
)
# Columns of the original CSV files.
DICES_RATER: dict[str, Any] = {
  "ignore": (
    "id",
    "rater_gender",
    "rater_race_raw",
    "rater_raw_race",
    "rater_age",
    "rater_education",
    "phase",
    "answer_time_ms",
    "answer_timestamp",
    "degree_of_harm",
    "harm_type",
    "safety_gold",
    "safety_gold_reason",
  ),
  "ignore_prefixes": tuple(f"Q{i}_" for i in range(1, 7)),
  "reads": (
    "item_id",
    "rater_id",
    "rater_locale",
    "rater_race",
    "context",
    "response",
    "Q_overall",
  ),
}
_BON = ("id", "dataset", "prompt", "candidates")

ADAPTERS: dict[str, base.Adapter] = {
  "dices/dices350": _DICES,
  "dices/dices990": _DICES,
  # The original CSV files, one line per rater and conversation.
  "google-research-datasets/dices-dataset": base.Adapter(
    **DICES_RATER, row=_dices_rater
  ),
  "crehate/ratings": base.Adapter(
    reads=("post_id", "annotator", "rating"),
    beside=("posts", "annotators"),
    join=_crehate,
  ),
  "crehate/posts": base.Adapter(
    reads=("post_id", "text", "source_set", "country_label"),
    row=_crehate_post,
  ),
  "vader_sentiment/snippets": base.Adapter(
    ignore=("sd", "n_raters"),
    reads=("id", "domain", "text", "mean", "ratings"),
    row=_vader,
  ),
  "cnndm_summaries/ratings": base.Adapter(
    ignore=("doc_id", "annotators", "hter", "rouge_l"),
    reads=("id", "system", "reference", "summary", "ratings"),
    row=_cnndm,
  ),
  "dsp_domains_NC/queries": base.Adapter(
    reads=("id", "query", "responses"), row=_domains
  ),
  "bon_tulu16_NC/candidates": base.Adapter(
    ignore=("reference", "rm_choice"),
    reads=(*_BON, "gpt4_pref"),
    row=_candidates,
  ),
  "bon_tulu16_NC/choices": base.Adapter(
    ignore=("reference", "gpt4_pref"),
    reads=(*_BON, "rm_choice"),
    row=_choices,
  ),
}
