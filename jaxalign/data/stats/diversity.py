"""Self-BLEU: how much the texts of a set repeat each other."""

import bisect
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ORDERS = (2, 3, 4, 5)
EPSILON = 0.1  # matches of an order without any, smoothing of Chen & Cherry 1

Gram = tuple[str, ...]


class _Most(NamedTuple):
  """How often one n-gram is in the text that has it most, and in the next."""

  first: int
  owner: int
  second: int


def words_of(text: str) -> list[str]:
  """Words and punctuation marks of a text, in order."""
  return re.findall(r"\w+|[^\w\s]", text)


def self_bleu(texts: Sequence[str], orders: Sequence[int] = ORDERS) -> float:
  """Mean BLEU of each text against all others, and over several orders.

    SelfBLEU_n = (1/N) Σ_i BP_i exp((1/n) Σ_{m<=n} log p_im)

  p_im is the share of the m-grams of text i that some other text has, each
  counted as often at most as in the other that has it most; BP_i the penalty
  for a text shorter than the nearest in length. An order without a match counts
  as 0.1 matches; a text without a word in common is worth 0.

  Args:
    texts: N texts, two or more.
    orders: the n that are averaged.

  Returns:
    A number in [0, 1]; 1 where all texts are the same, lower for more diverse
    ones.

  Raises:
    ValueError: there are fewer than two texts.

  References:
    Zhu et al., "Texygen: a benchmarking platform for text generation models",
    2018. Papineni et al., "BLEU", 2002. The mean over 2 to 5 is that of Dou et
    al., "MetaRM: shifted distributions alignment via meta-learning", 2024.
  """
  if len(texts) < 2:
    raise ValueError(f"self_bleu compares two texts or more, got {len(texts)}")
  words = [words_of(text) for text in texts]
  counts = [
    [_grams(one, order) for one in words] for order in range(1, max(orders) + 1)
  ]
  most = [_most(of_order) for of_order in counts]
  lengths = sorted(len(one) for one in words)
  total = 0.0
  for i, one in enumerate(words):
    logs = _log_precisions([c[i] for c in counts], most, i)
    if logs is None:
      continue
    penalty = _log_penalty(len(one), lengths)
    total += sum(
      math.exp(penalty + sum(logs[:order]) / order) for order in orders
    )
  return total / len(orders) / len(words)


def _grams(words: Sequence[str], order: int) -> Counter[Gram]:
  return Counter(zip(*(words[k:] for k in range(order)), strict=False))


def _most(counts: Iterable[Counter[Gram]]) -> dict[Gram, _Most]:
  found: dict[Gram, _Most] = {}
  for owner, one in enumerate(counts):
    for gram, number in one.items():
      first, before, second = found.get(gram, _Most(0, -1, 0))
      if number > first:
        found[gram] = _Most(number, owner, first)
      else:
        found[gram] = _Most(first, before, max(second, number))
  return found


def _log_precisions(
  counts: Sequence[Counter[Gram]],
  most: Sequence[dict[Gram, _Most]],
  owner: int,
) -> list[float] | None:
  """Log p_m of one text; None where it shares no word with another."""
  logs = []
  for order, (own, others) in enumerate(zip(counts, most, strict=True)):
    matches: float = 0
    for gram, number in own.items():
      first, whose, second = others[gram]
      matches += min(number, second if whose == owner else first)
    if not matches and not order:
      return None
    logs.append(math.log((matches or EPSILON) / max(own.total(), 1)))
  return logs


def _log_penalty(length: int, lengths: Sequence[int]) -> float:
  """Log BP against the nearest length of another text, the shorter of two."""
  at = bisect.bisect_left(lengths, length)
  others = [*lengths[max(at - 1, 0) : at], *lengths[at + 1 : at + 2]]
  nearest = min(others, key=lambda other: (abs(other - length), other))
  return min(0.0, 1 - nearest / length)
