"""Personas of an LLM crowd: profiles, questions, and parsing of their votes.

Every persona gives one of d labels to a response, and the population's own
distribution is asked for once as the prior. What is not exactly in the form
asked for is no vote.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.data.llm_labels.client import Answer
from jaxalign.data.records import columns

OUTCOMES = ("valid", "refused", "truncated", "malformed", "failed")

_FIELDS = ("version", "labels", "personas", "question", "prior_question")
_REFUSALS = re.compile(
  r"\s*(i'?m sorry|i am sorry|sorry|i can(no|')t|i can’t|i won'?t|i'?m unable|"
  r"i am unable|i'?m not able|as an ai)\b",
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Label:
  """A label that a persona can give.

  Attributes:
    name: shown to the model.
    utility: worth of such a response, in reward units.
  """

  name: str
  utility: float


@dataclasses.dataclass(frozen=True)
class Persona:
  """A persona that an LLM answers as.

  Attributes:
    name: unique.
    description: "You are ...", the system message.
  """

  name: str
  description: str


@dataclasses.dataclass(frozen=True)
class PersonaFile:
  """A versioned file of personas and labels.

  Attributes:
    version: changes with anything in the file.
    labels: in the order of a distribution.
    personas: who votes.
    question: for one label, asked after the labels and the texts.
    prior_question: for the population's distribution.
    digest: of the file's bytes, hexadecimal.
  """

  version: str
  labels: tuple[Label, ...]
  personas: tuple[Persona, ...]
  question: str
  prior_question: str
  digest: str


def load_personas(path: str | os.PathLike[str]) -> PersonaFile:
  """Reads a persona file.

  Args:
    path: JSON with `version`, `labels` [{name, utility}], `personas` [{name,
      description}], `question` and `prior_question`.

  Returns:
    The crowd.

  Raises:
    ValueError: begins with the path; the file is not in this form, has fewer
      than two labels or no persona, or names one twice.
  """
  with epath.Path(path).open("rb") as file:
    content = file.read()
  try:
    given = json.loads(content)
    _exactly(given, _FIELDS)
    labels = [
      Label(columns.string("name", one["name"]),
            columns.number("utility", one["utility"]))
      for one in _objects(given, "labels", ("name", "utility"))
    ]  # fmt: skip
    personas = [
      Persona(*(columns.string(name, one[name]) for name in one))
      for one in _objects(given, "personas", ("name", "description"))
    ]
    for kind, names in (
      ("labels", [label.name for label in labels]),
      ("personas", [persona.name for persona in personas]),
    ):
      if len({*names}) < len(names):
        raise ValueError(f"{kind} must have different names")
    if len(labels) < 2 or not personas:
      raise ValueError(
        "expected two labels or more and a persona, got "
        f"{len(labels)} and {len(personas)}"
      )
    texts = {
      name: columns.string(name, given[name])
      for name in ("version", "question", "prior_question")
    }
  except ValueError as error:
    raise ValueError(f"{os.fspath(path)}: {error}") from None
  return PersonaFile(
    labels=tuple(labels),
    personas=tuple(personas),
    digest=hashlib.sha256(content).hexdigest(),
    **texts,
  )


def _exactly(given: Any, fields: Sequence[str]) -> None:
  if not isinstance(given, Mapping):
    raise ValueError(f"expected an object, got {columns.kind(given)}")
  if {*given} != {*fields}:
    raise ValueError(
      f"expected {', '.join(fields)}, got {', '.join(map(str, given))}"
    )


def _objects(
  given: Mapping[str, Any], name: str, fields: Sequence[str]
) -> list[Mapping[str, Any]]:
  """A list of objects with exactly `fields`, each in that order."""
  if not isinstance(given[name], list):
    raise ValueError(f"{name} must be a list, got {columns.kind(given[name])}")
  for one in given[name]:
    _exactly(one, fields)
  return [{field: one[field] for field in fields} for one in given[name]]


def vote_question(
  crowd: PersonaFile, persona: Persona, prompt: str, response: str
) -> list[dict[str, str]]:
  """The messages that ask one persona for one label."""
  return [
    {"role": "system", "content": persona.description},
    {
      "role": "user",
      "content": _asked(crowd, crowd.question, prompt, response),
    },
  ]


def prior_question(
  crowd: PersonaFile, prompt: str, response: str
) -> list[dict[str, str]]:
  """The messages that ask for the distribution of the whole population."""
  asked = _asked(crowd, crowd.prior_question, prompt, response)
  return [{"role": "user", "content": asked}]


def _asked(
  crowd: PersonaFile, question: str, prompt: str, response: str
) -> str:
  labels = "\n".join(f"{i}. {l.name}" for i, l in enumerate(crowd.labels, 1))
  # As JSON, so that no text can close its own quotation.
  texts = json.dumps({"prompt": prompt, "response": response}, indent=1)
  return f"{texts}\n\nLabels:\n{labels}\n\n{question}"


def parse_vote(text: str, num_labels: int) -> int:
  """The label of `{"label": 3}`, from 0.

  Raises:
    ValueError: the text is anything else, be it only a word longer.
  """
  value = _only(text, "label")
  if isinstance(value, bool) or not isinstance(value, int):
    raise ValueError(f"label must be a whole number, got {columns.kind(value)}")
  if not 1 <= value <= num_labels:
    raise ValueError(f"label must be in [1, {num_labels}], got {value}")
  return value - 1


def parse_prior(text: str, num_labels: int) -> tuple[float, ...]:
  """The shares of `{"shares": [0.5, 0.25, ...]}`, scaled to sum 1.

  Raises:
    ValueError: the text is anything else, or the sum is off by over 0.02.
  """
  values = _only(text, "shares")
  if not isinstance(values, list) or len(values) != num_labels:
    raise ValueError(f"shares must be a list of {num_labels} numbers")
  shares = [columns.probability("shares", value) for value in values]
  total = math.fsum(shares)
  if abs(total - 1.0) > 0.02:
    raise ValueError(f"shares must sum to 1, got {total:g}")
  return tuple(value / total for value in shares)


def _only(text: str, name: str) -> Any:
  """The value of an object with one name, which must be all of the text."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    raise ValueError("the answer must be JSON and nothing else") from None
  if not isinstance(value, dict) or [*value] != [name]:
    raise ValueError(f"the answer must be an object with {name!r} alone")
  return value[name]


def outcome(
  answer: Answer | None, parse: Any, num_labels: int
) -> tuple[str, Any]:
  """What became of a question: one of `OUTCOMES`, and the parsed answer.

  Args:
    answer: of the endpoint, None where it never came.
    parse: `parse_vote` or `parse_prior`.
    num_labels: d.

  Returns:
    ("valid", value), or another outcome and None.
  """
  if answer is None:
    return "failed", None
  if answer.refused:
    return "refused", None
  try:
    return "valid", parse(answer.text, num_labels)
  except ValueError:
    if answer.finish == "length":
      return "truncated", None
    if _REFUSALS.match(answer.text):
      return "refused", None
    return "malformed", None


def pseudo_counts(
  prior: Sequence[float], votes: np.ndarray, prior_strength: float
) -> np.ndarray:
  """Parameters of the posterior Dirichlet, float64 [d]: κ prior + votes.

  Its mean is the label distribution; further votes are added to it.

  Args:
    prior: the population's shares, [d], sum 1.
    votes: people per label, [d].
    prior_strength: κ, votes that the prior is worth, >= 0.

  Returns:
    The parameters.

  Raises:
    ValueError: κ is negative, or neither prior nor votes weigh anything.
  """
  if prior_strength < 0:
    raise ValueError(f"prior_strength must be >= 0, got {prior_strength}")
  counts = prior_strength * np.asarray(prior, np.float64) + votes
  if counts.sum() <= 0:
    raise ValueError("without votes prior_strength must be > 0")
  return counts
