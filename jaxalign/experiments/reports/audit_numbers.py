"""The numbers of an audit that need the records alone, as JSON values."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import metrics
from jaxalign.data.records.record import Record
from jaxalign.data.stats import duplicates, summary
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.reports import judge_agreement
from jaxalign.experiments.reward_model import pair_scores

FEW_PROMPTS = 30
NUM_SAMPLES = 1000  # resamples of people


def describe(
  pairs: Sequence[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  similarity: float,
  seed: int,
) -> dict[str, Any]:
  """The numbers of one split, as JSON values.

  Args:
    pairs: of the split.
    tokenizer: counts tokens.
    max_length: of a pair in tokens.
    similarity: Jaccard similarity of word triples from which texts are near.
    seed: of the bootstrap over people.

  Returns:
    What `eval.json` holds of it, beside what became of its sources.
  """
  counted = summary.tokens(pairs, tokenizer)
  markers = sum(map(len, tokenizer.markers))
  longest = counted["prompt"] + markers
  longest = longest + np.maximum(counted["chosen"], counted["rejected"])
  people = summary.pairs_per_annotator(pairs)
  sources = sorted({str(record.source) for record in pairs})
  return {
    "pairs": len(pairs),
    "pairs_by_source": _tally(pairs, "source"),
    "pairs_by_group": _tally(pairs, "group"),
    "characters": {
      part: summary.quantiles(values)
      for part, values in summary.characters(pairs).items()
    },
    "tokens": {
      part: summary.quantiles(values) for part, values in counted.items()
    },
    "longer_than_max_length": int((longest > max_length).sum()),
    "ties": sum(record.target_prob == 0.5 for record in pairs),
    "votes": votes(pairs),
    "judge": judge_agreement.of_records(pairs),
    "longer_wins": {
      name: _share(summary.longer_wins(part), part, seed)
      for name in ("all", *(sources if len(sources) > 1 else ()))
      for part in (_of_source(pairs, name),)
    },
    "first_wins": _share(
      summary.first_wins(pairs),
      [r for r in pairs if r.position is not None and not r.tie],
      seed,
    ),
    "annotators": {
      "named": len(people),
      "pairs_without": sum(record.annotator is None for record in pairs),
      "pairs_each": summary.quantiles(np.array([*people.values()]))
      if people
      else None,
      "busiest_share": max(people.values(), default=0) / len(pairs),
    },
    "repeats": duplicates.find_repeats(pairs, similarity=similarity)._asdict(),
  }


def rated(records: Sequence[Record]) -> dict[str, Any] | None:
  """Numbers of responses that were judged alone, None where there are none."""
  if not records:
    return None
  people = summary.pairs_per_annotator(records)
  votes = [r.label_votes[0] for r in records if r.label_votes is not None]
  found: dict[str, Any] = {
    "responses": len(records),
    "named_annotators": len(people),
    "with_label_votes": len(votes),
    "entropy_bits": None,
    "two_agree": None,
  }
  by_classes = {len(counts) for counts in votes}
  if len(by_classes) == 1:
    counts = np.array(votes, np.float32)
    total, number = metrics.rater_agreement(counts)
    found["entropy_bits"] = float(metrics.vote_entropy(counts).mean())
    found["two_agree"] = float(total / number) if number else None
  return found


def _tally(pairs: Sequence[Record], column: str) -> dict[str, int]:
  counts: dict[str, int] = {}
  for record in pairs:
    name = record.__getattribute__(column)
    if name is not None:
      counts[name] = counts.get(name, 0) + 1
  return dict(sorted(counts.items()))


def _of_source(pairs: Sequence[Record], name: str) -> Sequence[Record]:
  return [r for r in pairs if name in ("all", str(r.source))]


def _share(
  values: Any, records: Sequence[Record], seed: int
) -> dict[str, float | int | None]:
  """A share with its interval, over people where several pairs are theirs.

  None for the share of nothing.
  """
  found = summary.share(float(values.sum()), len(values))._asdict()
  if not len(values):
    return found | {"value": None}
  people = pair_scores.clusters_of(pair_scores.annotators(records))
  if people is not None:
    ends = pair_scores.mean_over_people(
      values.astype(np.float32),
      people,
      jax.random.key(seed),
      num_people=int(people.max()) + 1,
      num_samples=NUM_SAMPLES,
    )
    found |= {"low": float(ends.low), "high": float(ends.high)}
  return found


def votes(pairs: Sequence[Record]) -> dict[str, float | int] | None:
  """Entropy and agreement of the votes on pairs, None where none are known."""
  counts = summary.vote_counts(pairs)
  if not len(counts):
    return None
  decided = counts[:, :2].sum(axis=1) > 0
  sides = counts[decided, :2]
  total, number = metrics.rater_agreement(counts)
  return {
    "pairs": len(counts),
    "votes": int(counts.sum()),
    "tie_votes": int(counts[:, 2].sum()),
    "entropy_bits": float(metrics.vote_entropy(counts).mean()),
    "unanimous": float((counts.max(axis=1) == counts.sum(axis=1)).mean()),
    "majority_share": float((sides.max(1) / sides.sum(1)).mean()),
    "two_agree": float(total / number) if number else math.nan,
  }


def resolution(
  pairs: Sequence[Record],
  *,
  accuracy: float,
  disagreement: float,
  num_bins: int,
  seed: int,
) -> dict[str, dict[str, float]]:
  """The smallest differences that these pairs can show.

  Args:
    pairs: held out.
    accuracy: of the reward models to be compared.
    disagreement: share of pairs on which exactly one of two models is right.
    num_bins: bins of the calibration error.
    seed: of simulated samples.

  Returns:
    For n = all pairs, for n = distinct prompts and for n = people, which is
    what counts where the pairs of one prompt, or of one person, succeed or fail
    together; few prompts are templates that say nothing of the kind and are
    left out, as are few people.
  """
  prompts = len({duplicates.folded(str(record.prompt)) for record in pairs})
  counts = {"pairs": len(pairs)}
  if prompts >= FEW_PROMPTS:
    counts["prompts"] = prompts
  if pair_scores.clusters_of(pair_scores.annotators(pairs)) is not None:
    counts["people"] = len(summary.pairs_per_annotator(pairs))
  found = {}
  for name, number in counts.items():
    found[name] = {
      "n": number,
      "accuracy_over_chance": metrics.detectable_accuracy_over_chance(number),
      "accuracy_difference": metrics.detectable_accuracy_difference(
        number, disagreement=disagreement
      ),
      "ece_difference": float(
        metrics.detectable_calibration_difference(
          number,
          accuracy=accuracy,
          key=jax.random.key(seed),
          num_bins=num_bins,
        )
      ),
    }
  return found
