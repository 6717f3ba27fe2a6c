"""Rewards of real text that need no model: sentiment and conciseness.

A policy config names them as its source, one output or both:
`source.function="jaxalign.data.synthetic.text_rewards:sentiment_and_conciseness"`,
`source.names=("sentiment", "conciseness")`. A function of your own has the
same form: prompts and responses in, one row of rewards per response out.

All are measured in standard deviations from the mean of the same texts, 9,982
sentences of reviews that people wrote, so that a difference between two of them
means something. `$JAXALIGN_DATA/vader_sentiment` holds these and the lexicon.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.records import files, reader, sources
from jaxalign.data.records.chat import Text, text_of

FOLDER = "$JAXALIGN_DATA/vader_sentiment"
WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
NEGATIONS = frozenset(
  "no not never none nobody nothing nowhere neither nor cannot without hardly "
  "barely rarely seldom".split()
)
NEGATION_FACTOR = -0.74  # Hutto and Gilbert 2014, as are the two below
NEGATION_REACH = 3  # words
SATURATION = 15.0


class Scale(NamedTuple):
  """Mean and population standard deviation of reference scores, [K] each."""

  mean: np.ndarray
  std: np.ndarray


def read_lexicon(path: str) -> dict[str, float]:
  """Valence of each word, about -4 to 4.

  Args:
    path: a file, plain or gzip; a line is a token, its mean valence and what
      else there is, with tabs between. The last of equal tokens holds.

  Returns:
    Token -> valence.

  Raises:
    ValueError: a line without a valence; begins `FILE:LINE:`.
  """
  valences = {}
  with files.Lines(path) as file:
    for line in file:
      token, value, *_ = (*line.rstrip("\n").split("\t"), "")
      try:
        valences[token] = float(value)
      except ValueError:
        raise ValueError(
          f"{path}:{file.number}: expected a token, a tab and its valence, got "
          f"{line!r}"
        ) from None
  return valences


def compound(text: str, valences: Mapping[str, float]) -> float:
  """Sentiment of a text in (-1, 1), 0 where no word has a valence.

    s / sqrt(s² + 15),   s = Σ valence · (−0.74 if negated)

  A word is negated by "not" and its like among the three words before it. These
  are two of VADER's rules; it also reads emoticons, capitals, exclamation
  marks, "very" and "but", which are not read here.

  Args:
    text: of any length.
    valences: of `read_lexicon`; negations have none, whatever it says.

  References:
    Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment
    analysis of social media text", 2014.
  """
  words = WORD.findall(text.lower().replace("’", "'"))
  negates = [word in NEGATIONS or word.endswith("n't") for word in words]
  total = 0.0
  for i, word in enumerate(words):
    if negates[i]:
      continue
    negated = any(negates[max(i - NEGATION_REACH, 0) : i])
    total += valences.get(word, 0.0) * (NEGATION_FACTOR if negated else 1.0)
  return total / math.sqrt(total**2 + SATURATION)


def sentiment(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
  """`compound` of each response in deviations from the reference, [B].

  Raises:
    ValueError: JAXALIGN_DATA is not set, or the lexicon is not there.
  """
  return sentiment_and_conciseness(prompts, responses)[:, 0]


def conciseness(
  prompts: Sequence[Text], responses: Sequence[str]
) -> np.ndarray:
  """Minus the characters of each response, on the same scale, [B].

  Raises:
    ValueError: JAXALIGN_DATA is not set, or the reference is not there.
  """
  return sentiment_and_conciseness(prompts, responses)[:, 1]


def sentiment_and_conciseness(
  prompts: Sequence[Text], responses: Sequence[str]
) -> np.ndarray:
  """Both, float64 [B, 2]: what is pleasant to some and too long to others.

  Args:
    prompts: not read.
    responses: texts.

  Raises:
    ValueError: JAXALIGN_DATA is not set, or the folder is not there.
  """
  del prompts
  scale = _reference()
  return (_scores(responses, _lexicon()) - scale.mean) / scale.std


def _scores(texts: Sequence[str], valences: Mapping[str, float]) -> np.ndarray:
  """Compound and minus characters of each text, float64 [B, 2]."""
  rows = [(compound(text, valences), -float(len(text))) for text in texts]
  return np.array(rows, np.float64).reshape(-1, 2)


@functools.cache
def _lexicon() -> dict[str, float]:
  (path,) = sources.files_of(f"{FOLDER}/vader_lexicon.txt.gz", FOLDER)
  return read_lexicon(path)


@functools.cache
def _reference() -> Scale:
  """Mean and deviation of the reference snippets, the zero and the unit."""
  records = reader.RecordStream((f"{FOLDER}/snippets_train.jsonl.gz",))
  texts = [text_of(record.responses[0]) for record in records]
  scores = _scores(texts, _lexicon())
  return Scale(scores.mean(axis=0), scores.std(axis=0))
