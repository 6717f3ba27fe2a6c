"""Local adapters, votes: files of votes on texts that another file holds."""

from collections.abc import Mapping
from typing import Any

from jaxalign.data.adapters import base
from jaxalign.data.records import columns

Row = Mapping[str, Any]

DIMENSIONS = ("rhetorical", "logical", "dialectical")


def dialogue(question: str) -> str:
  """A question as a prompt in the dialogue form of HH-RLHF."""
  return f"\n\nHuman: {question}\n\nAssistant:"


def pair(prompt: str, texts: list[str], winner: int | None) -> dict[str, Any]:
  """Two answers, the winner first; without one, a tie in the order given."""
  first = 0 if winner is None else winner
  return {
    "prompt": prompt,
    "chosen": f" {texts[first]}",
    "rejected": f" {texts[1 - first]}",
    "tie": True if winner is None else None,
  }


def rows_by(
  tables: base.Tables,
  file: str,
  by: tuple[str, ...],
  texts: tuple[str, ...] = (),
) -> dict[tuple[str, ...], Row]:
  """The rows of a file that lies beside the votes.

  Args:
    tables: all such files.
    file: which one.
    by: columns that name a row together.
    texts: columns that must hold text.

  Returns:
    Name to row.

  Raises:
    ValueError: a row without one of the columns, by its number.
  """
  table = {}
  for number, row in enumerate(tables[file], start=1):
    try:
      key = tuple(base.need_label(row, name) for name in by)
      for name in texts:
        base.need_text(row, name)
    except ValueError as error:
      raise ValueError(
        f"row {number} of the file {file} beside this one: {error}"
      ) from None
    table[key] = row
  return table


def find(table: Mapping[tuple[str, ...], Row], what: str, *key: str) -> Row:
  """The row of another file; ValueError where it has none."""
  if key not in table:
    raise ValueError(
      f"{what} {' '.join(key)} is not in the file beside this one"
    )
  return table[key]


def winner_of(given: Any, names: tuple[Any, Any, Any]) -> int | None:
  """0 or 1 for the first two of `names`, None for the third, a tie."""
  if given not in names:
    raise ValueError(
      f"a vote must be one of {', '.join(map(str, names))}, got {given!r}"
    )
  at = names.index(given)
  return at if at < 2 else None


def _convarg(tables: base.Tables) -> base.Convert:
  """One record per worker's vote; the group is the worker's own stance."""
  arguments = rows_by(
    tables, "arguments", ("arg_id",), ("debate", "stance", "text")
  )

  def convert(row: Row) -> list[dict[str, Any]]:
    names = [base.need_label(row, side) for side in ("arg1", "arg2")]
    sides = [find(arguments, "argument", name) for name in names]
    prompt = dialogue(
      f"Debate: {sides[0]['debate']} Give one argument for the side "
      f'"{sides[0]["stance"]}".'
    )
    texts = [side["text"] for side in sides]
    made = []
    for vote in base.need_list(row, "votes"):
      winner = winner_of(base.need(vote, "value"), ("a1", "a2", "equal"))
      made.append(
        pair(prompt, texts, winner)
        | {
          "source": "convarg",
          "annotator": base.need(vote, "worker"),
          "group": vote.get("worker_stance"),
          "id": f"{'-'.join(names)}-{base.need_label(vote, 'worker')}",
        }
      )
    return made

  return convert


def _mt_bench(tables: base.Tables) -> base.Convert:
  """A judge's vote on the first or the second turn of two models."""
  conversations = rows_by(tables, "answers", ("question_id", "model"))

  def convert(row: Row) -> dict[str, Any]:
    question = base.need_label(row, "question_id")
    turn = columns.count("turn", base.need(row, "turn"))
    texts = []
    for side in ("model_a", "model_b"):
      name = base.need_label(row, side)
      said = find(conversations, "conversation", question, name)
      turns = [
        base.need_text(turn, "content")
        for turn in base.need_list(said, "conversation")
      ]
      if len(turns) != 4:
        raise ValueError(f"a conversation must hold 4 turns, got {len(turns)}")
      asked, answered, asked_again, answered_again = turns
      texts.append(answered)
      if turn == 2:
        texts[-1] += f"{dialogue(asked_again)} {answered_again}"
    winner = winner_of(base.need(row, "winner"), ("model_a", "model_b", "tie"))
    return pair(dialogue(asked), texts, winner) | {
      "source": "mt_bench",
      "annotator": base.need(row, "judge"),
      "group": row.get("category"),
      "id": f"{question}-t{turn}-{row['model_a']}-{row['model_b']}",
    }

  return convert


def _humour(tables: base.Tables) -> base.Convert:
  """How many of up to five people found which text funnier."""
  texts = rows_by(tables, "items", ("item",), ("text",))

  def convert(row: Row) -> dict[str, Any]:
    # A CSV file: everything is text.
    items = [base.need_label(row, f"item_{side}") for side in "ab"]
    votes = [_votes(row, f"votes_{side}_funnier") for side in "ab"]
    best = 0 if votes[0] >= votes[1] else 1
    made = pair(
      dialogue("Tell me a joke."),
      [find(texts, "item", item)["text"] for item in items],
      None if votes[0] == votes[1] else best,
    )
    return made | {
      "source": "humour",
      "votes_chosen": votes[best],
      "votes_rejected": votes[1 - best],
      "group": "humour",
      "id": "-".join(items),
    }

  return convert


def _votes(row: Row, name: str) -> int:
  given = base.need_text(row, name)
  if not given.isdecimal():
    raise ValueError(f"{name} must be a whole number, got {given[:40]!r}")
  return columns.count(name, int(given[:40]))


def _pandalm(row: Row) -> list[dict[str, Any]]:
  """One record per annotator; 0 means similar."""
  asked = [base.need_text(row, "instruction")]
  if row.get("input"):
    asked.append(base.need_text(row, "input"))
  # Some responses were the words True and False, and became JSON booleans.
  texts = [str(base.need(row, f"response{i}")) for i in (1, 2)]
  name = "-".join(base.need_label(row, key) for key in ("idx", "cmp_key"))
  return [
    pair(
      dialogue("\n\n".join(asked)),
      texts,
      winner_of(base.need(row, f"annotator{i}"), (1, 2, 0)),
    )
    | {
      "source": "pandalm",
      "annotator": f"annotator{i}",
      "group": row.get("motivation_app"),
      "id": f"{name}-{i}",
    }
    for i in (1, 2, 3)
  ]


def _qa_feedback(row: Row) -> list[dict[str, Any]]:
  """Four answers of one policy, compared in pairs; 0 means no preference."""
  sides = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
  votes = base.need_list(row, "preference")
  if len(votes) != len(sides):
    raise ValueError(f"preference must hold 6 values, got {len(votes)}")
  prompt = dialogue(base.need_text(row, "question"))
  made = []
  for (i, j), vote in zip(sides, votes, strict=True):
    texts = [base.need_text(row, f"prediction {k}") for k in (i, j)]
    made.append(
      pair(prompt, texts, winner_of(vote, (1, 2, 0)))
      | {
        "source": "qa_feedback",
        "group": "long_form_qa",
        "id": f"{base.need_label(row, 'id')}-{i}v{j}",
      }
    )
  return made


def _webis(tables: base.Tables) -> base.Convert:
  """The same pair under three objectives, each a source of its own."""
  texts = rows_by(tables, "arguments", ("arg",), ("text",))
  topics = rows_by(tables, "topics", ("topic_id",), ("query",))

  def convert(row: Row) -> list[dict[str, Any]]:
    names = [base.need_label(row, f"arg_{side}") for side in "ab"]
    number = base.need_label(row, "topic_id")
    topic = find(topics, "topic", number)["query"]
    return [
      pair(
        dialogue(topic),
        [find(texts, "argument", name)["text"] for name in names],
        winner_of(base.need(row, dimension), ("A", "B", "Tie")),
      )
      | {
        "source": f"webis_{dimension}",
        "group": f"topic {number}",
        "id": f"{'-'.join(names)}-{dimension}",
      }
      for dimension in DIMENSIONS
    ]

  return convert


ADAPTERS: dict[str, base.Adapter] = {
  "convarg/votes": base.Adapter(
    ignore=("topic", "gold"),
    reads=("arg1", "arg2", "votes"),
    beside=("arguments",),
    join=_convarg,
  ),
  "mt_bench/votes": base.Adapter(
    ignore=("gpt4_winner",),
    reads=(
      "question_id",
      "category",
      "turn",
      "model_a",
      "model_b",
      "judge",
      "winner",
    ),
    beside=("answers",),
    join=_mt_bench,
  ),
  "humour/votes": base.Adapter(
    reads=("item_a", "item_b", "votes_a_funnier", "votes_b_funnier"),
    beside=("items",),
    join=_humour,
  ),
  "pandalm/votes": base.Adapter(
    reads=(
      "idx",
      "motivation_app",
      "cmp_key",
      "instruction",
      "input",
      "response1",
      "response2",
      "annotator1",
      "annotator2",
      "annotator3",
    ),
    row=_pandalm,
  ),
  "qa_feedback/records": base.Adapter(
    ignore=("passages", "gold", "feedback"),
    reads=(
      "id",
      "question",
      "preference",
      *(f"prediction {i}" for i in (1, 2, 3, 4)),
    ),
    row=_qa_feedback,
  ),
  "webis_argquality/comparisons": base.Adapter(
    reads=("topic_id", "arg_a", "arg_b", *DIMENSIONS),
    beside=("arguments", "topics"),
    join=_webis,
  ),
}
