"""Real rows and named ways to break them, each with what must become of it.

A way takes a good row and gives the bytes of its line and its fate: the record
that must come out, the reason it is dropped for, or what its error says.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record, parse_record

Row = dict[str, Any]


class Fate(NamedTuple):
  """Exactly one is not None."""

  record: Record | None = None
  dropped: str | None = None
  error: str | None = None


def good(row: Row, **changes: Any) -> Fate:
  """The row's own record, with these fields instead."""
  record = parse_record(row, where="f:1")
  return Fate(record=dataclasses.replace(record, **changes))


def line(row: Row, **options: Any) -> bytes:
  return json.dumps(row, ensure_ascii=False, **options).encode() + b"\n"


def without(row: Row, *names: str) -> Row:
  return {name: value for name, value in row.items() if name not in names}


def chat(row: Row) -> tuple[Row, tuple[Turn, ...]]:
  """The row with chat turns in place of text, and its prompt."""
  said = lambda role, text: {"role": role, "content": text}
  turns = {
    "prompt": [said("user", row["prompt"])],
    "chosen": [said("assistant", row["chosen"])],
    "rejected": [said("assistant", row["rejected"])],
  }
  return {**row, **turns}, (Turn("user", row["prompt"]),)


def changed(error: str, **values: Any) -> Callable[[Row, Any], Any]:
  """A way that sets columns and must fail with an error."""
  return lambda row, rng: (line({**row, **values}), Fate(error=error))


def dropped(reason: str, **values: Any) -> Callable[[Row, Any], Any]:
  return lambda row, rng: (line({**row, **values}), Fate(dropped=reason))


def shuffled_keys(row: Row, rng: np.random.Generator) -> tuple[bytes, Fate]:
  names = rng.permutation(list(row)).tolist()
  return line({name: row[name] for name in names}), good(row)


def nulls_for_absent_columns(row: Row, rng: Any) -> tuple[bytes, Fate]:
  absent = {"margin": None, "tie": None, "labels": None, "ratings": None}
  return line({**absent, **row}), good(row)


def responses_for_chosen_and_rejected(row: Row, rng: Any) -> tuple[bytes, Fate]:
  texts = [row["chosen"], row["rejected"]]
  other = {**without(row, "chosen", "rejected"), "responses": texts}
  return line(other), good(row)


def chat_turns(row: Row, rng: Any) -> tuple[bytes, Fate]:
  other, prompt = chat(row)
  return line(other), good(row, prompt=prompt)


def chat_with_implicit_prompt(row: Row, rng: Any) -> tuple[bytes, Fate]:
  other, prompt = chat(row)
  start = other.pop("prompt")
  for side in ("chosen", "rejected"):
    other[side] = start + other[side]
  return line(other), good(row, prompt=prompt)


def strange_letters(row: Row, rng: Any) -> tuple[bytes, Fate]:
  text = f"{row['chosen']} \u0000\u2028\u202e\U0001f600 e\u0301\ufeff\r\n\t\\"
  return line({**row, "chosen": text}), good({**row, "chosen": text})


def a_long_text(row: Row, rng: Any) -> tuple[bytes, Fate]:
  text = row["prompt"] + "word " * 20_000
  return line({**row, "prompt": text}), good({**row, "prompt": text})


def whole_numbers_as_floats(row: Row, rng: Any) -> tuple[bytes, Fate]:
  votes = {"votes_chosen": 3, "votes_rejected": 1, "votes_tie": 0}
  votes["n_votes"] = 5
  as_floats = {name: float(number) for name, number in votes.items()}
  return line({**row, **as_floats}), good({**row, **votes})


def votes_that_n_votes_implies(row: Row, rng: Any) -> tuple[bytes, Fate]:
  other = without(row, "votes_rejected", "votes_tie")
  other |= {"votes_chosen": 2, "n_votes": 5}
  whole = {**other, "votes_rejected": 3}
  return line(other), good(whole)


def cut_off(row: Row, rng: np.random.Generator) -> tuple[bytes, Fate]:
  whole = line(row).rstrip(b"\n").decode()
  at = int(rng.integers(1, len(whole)))
  return whole[:at].encode() + b"\n", Fate(error="malformed JSON at column")


def a_byte_that_is_not_utf8(row: Row, rng: Any) -> tuple[bytes, Fate]:
  whole = line(row)
  at = int(rng.integers(1, len(whole) - 2))
  while whole[at] & 0xC0 == 0x80:  # inside a letter, where 0xff hides nothing
    at -= 1
  return whole[:at] + b"\xff" + whole[at:], Fate(error="not UTF-8 at byte")


def a_key_twice(row: Row, rng: Any) -> tuple[bytes, Fate]:
  whole = line(row).rstrip(b"}\n")
  return whole + b', "prompt": "x"}\n', Fate(error="key 'prompt' appears twice")


WAYS: dict[str, Callable[[Row, np.random.Generator], tuple[bytes, Fate]]] = {
  # Accepted, and read as what they are.
  "untouched": lambda row, rng: (line(row), good(row)),
  "shuffled keys": shuffled_keys,
  "nulls for absent columns": nulls_for_absent_columns,
  "escaped letters": lambda row, rng: (
    json.dumps(row).encode() + b"\n",
    good(row),
  ),
  "spaces around": lambda row, rng: (
    b" \t" + line(row, indent=None),
    good(row),
  ),
  "carriage return": lambda row, rng: (
    line(row).rstrip(b"\n") + b"\r\n",
    good(row),
  ),
  "blank lines before": lambda row, rng: (b"\n  \n" + line(row), good(row)),
  "responses": responses_for_chosen_and_rejected,
  "chat turns": chat_turns,
  "chat with implicit prompt": chat_with_implicit_prompt,
  "strange letters": strange_letters,
  "a long text": a_long_text,
  "whole numbers as floats": whole_numbers_as_floats,
  "implied votes": votes_that_n_votes_implies,
  "a number for a name": lambda row, rng: (
    line({**row, "annotator": 17}),
    good({**row, "annotator": "17"}),
  ),
  "a float for a name": lambda row, rng: (
    line({**row, "annotator": 17.0}),
    good({**row, "annotator": "17"}),
  ),
  # Dropped with a count.
  "empty chosen": dropped("empty_response", chosen=""),
  "blank rejected": dropped("empty_response", rejected=" \n\t"),
  "identical": lambda row, rng: (
    line({**row, "rejected": row["chosen"]}),
    Fate(dropped="identical_responses"),
  ),
  "both empty": dropped("identical_responses", chosen="", rejected=""),
  # Errors at that line.
  "cut off": cut_off,
  "trailing comma": lambda row, rng: (
    line(row).rstrip(b"}\n") + b",}\n",
    Fate(error="malformed JSON"),
  ),
  "single quotes": lambda row, rng: (
    b"{'prompt': 'Q'}\n",
    Fate(error="malformed JSON"),
  ),
  "two objects": lambda row, rng: (
    line(row).rstrip(b"\n") + b" " + line(row),
    Fate(error="malformed JSON"),
  ),
  "a mark within the file": lambda row, rng: (
    b"\xef\xbb\xbf" + line(row),
    Fate(error="malformed JSON"),
  ),
  "a raw control character": lambda row, rng: (
    line({**row, "chosen": "@@"}).replace(b"@@", b"a\x00b"),
    Fate(error="malformed JSON .*control character"),
  ),
  "deep nesting": lambda row, rng: (
    b"[" * 100_000 + b"\n",
    Fate(error="malformed JSON: nested too deeply"),
  ),
  "a list": lambda row, rng: (
    line([row]),
    Fate(error="the line must hold a JSON object"),
  ),
  "a key twice": a_key_twice,
  "not UTF-8": a_byte_that_is_not_utf8,
  "lone surrogate": lambda row, rng: (
    json.dumps({**row, "chosen": "\ud800"}).encode() + b"\n",
    Fate(error="chosen holds a lone surrogate"),
  ),
  "no chosen": lambda row, rng: (
    line(without(row, "chosen")),
    Fate(error="missing field 'chosen'"),
  ),
  "null rejected": changed("missing field 'rejected'", rejected=None),
  "unknown column": changed("unknown column 'colour'", colour="red"),
  "unknown null column": changed("unknown column 'colour'", colour=None),
  "a number for a text": changed("chosen must be text or chat", chosen=3),
  "a list of texts": changed(r"chosen\[0\] must be an object", chosen=["a"]),
  "text beside turns": changed(
    "must all be text or all be chat turns",
    rejected=[{"role": "assistant", "content": "a"}],
  ),
  "an unknown role": changed(
    r"prompt\[0\].role must be one of", prompt=[{"role": "x", "content": "a"}]
  ),
  "the last turn is the user's": changed(
    "chosen must end with an assistant turn",
    prompt=[],
    chosen=[{"role": "user", "content": "a"}],
    rejected=[{"role": "assistant", "content": "b"}],
  ),
  "both forms": changed("give responses or chosen", responses=["a", "b"]),
  "a text for a number": changed("margin must be a number", margin="0.5"),
  "a boolean for a number": changed("margin must be a number", margin=True),
  "a number for a flag": changed("tie must be true or false", tie=1),
  "not a number": changed("numbers must be finite", margin=float("nan")),
  "infinite": lambda row, rng: (
    line({**row, "margin": "@@"}).replace(b'"@@"', b"1e999"),
    Fate(error="margin must be finite"),
  ),
  "a probability above 1": changed("chosen_prob must be in", chosen_prob=1.5),
  "fewer than no votes": changed("votes_chosen must be in", votes_chosen=-1),
  "half a vote": changed("votes_chosen must be a whole", votes_chosen=2.5),
  "more votes than people": changed(
    "votes sum to 6, more than n_votes = 5",
    votes_chosen=3,
    votes_rejected=3,
    votes_tie=0,
    n_votes=5,
  ),
  "no vote at all": changed(
    "are all 0", votes_chosen=0, votes_rejected=0, votes_tie=0
  ),
  "a tie that is none": changed(
    "tie is true but votes are 3 to 1",
    tie=True,
    chosen_prob=None,
    votes_chosen=3,
    votes_rejected=1,
    votes_tie=0,
    n_votes=None,
  ),
  "labels that do not sum to 1": changed("labels must sum", labels=[0.5, 0.6]),
  "ratings of a third": changed("one per response", ratings={"x": [1, 2, 3]}),
  "an empty name": changed("group must not be empty", group=""),
}


class Mutated(NamedTuple):
  """Bytes of a file, and per line that counts: number, way and fate."""

  content: bytes
  lines: list[tuple[int, str, Fate]]


def mutate(rows: list[Row], number: int, seed: int) -> Mutated:
  """`number` rows, each in a way drawn at random; all ways occur.

  Args:
    rows: good pairs in the columns of the schema.
    number: how many, at least the number of ways.
    seed: of rows and ways.

  Returns:
    The file.
  """
  rng = np.random.default_rng(seed)
  names = list(WAYS)
  drawn = rng.integers(len(names), size=number)
  drawn[: len(names)] = rng.permutation(len(names))
  parts, lines, at = [], [], 0
  for way in drawn:
    row = rows[rng.integers(len(rows))]
    content, fate = WAYS[names[way]](row, rng)
    at += content.count(b"\n")
    parts.append(content)
    lines.append((at, names[way], fate))
  return Mutated(b"".join(parts), lines)
