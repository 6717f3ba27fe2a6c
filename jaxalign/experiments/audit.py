r"""Audit of preference data: one page about the files, before any training.

python -m jaxalign.experiments.audit --config=configs/audit.py \
    --config.data.train_files="('train.jsonl',)" \
    --config.data.eval_files="('test.jsonl',)" --workdir=runs/audit
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from jaxalign.data.records import reader
from jaxalign.data.records import splits as division
from jaxalign.data.records.record import Record, expand_rankings
from jaxalign.data.stats import baselines, duplicates
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reports import audit, audit_numbers, group_structure
from jaxalign.ops import checks
from jaxalign.runtime.distributed import multihost


@dataclasses.dataclass(frozen=True)
class AuditConfig:
  """Options of the audit.

  Attributes:
    num_samples: permutations of the test for group structure.
    num_rows: pairs that test looks at, drawn at random from more.
    similarity: Jaccard similarity of word triples from which texts are near.
    num_bins: bins of the calibration error that is to be measured.
    accuracy: of the reward models to be compared, in (0.5, 1).
    disagreement: share of pairs on which exactly one of two models is right.
  """

  num_samples: int = 999
  num_rows: int = 20_000
  similarity: float = 0.8
  num_bins: int = 10
  accuracy: float = 0.7
  disagreement: float = 0.3

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_samples=self.num_samples,
      num_rows=self.num_rows,
      num_bins=self.num_bins,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `audit` reads.

  Attributes:
    seed: of permutations, resamples and simulated samples.
    data: `train_files` and `eval_files` are audited, either may be empty; the
      tokenizer counts tokens.
    audit: what is asked.
  """

  seed: int = 0
  data: preferences.DataConfig
  audit: AuditConfig = AuditConfig()


class Split(NamedTuple):
  """One side of the data.

  Attributes:
    name: "train" or "eval".
    records: as read.
    report: what reading lost; of both sides where one source is divided.
  """

  name: str
  records: list[Record]
  report: reader.ReadReport

  @property
  def pairs(self) -> list[Record]:
    """Two responses each, rankings expanded."""
    return [p for p in expand_rankings(self.records) if len(p.responses) == 2]

  @property
  def rated(self) -> list[Record]:
    """Single responses that were judged by themselves."""
    return [record for record in self.records if len(record.responses) == 1]


def read(config: Config) -> list[Split]:
  """The splits that have sources.

  Raises:
    ValueError: neither has any, or a bad record as `FILE:LINE: reason`.
  """
  data = config.data
  given = {"train": data.train_files, "eval": data.eval_files}
  splits = []
  for name, files in given.items():
    if files:
      stream = preferences.record_stream(data, files)
      splits.append(Split(name, list(stream), stream.whole_report()))
  if splits and data.split_by is not None and data.eval_fraction is not None:
    (whole,) = splits
    sides = division.split_records(
      whole.records, data.split_by, data.eval_fraction
    )
    splits = [
      Split(name, records, whole.report)
      for name, records in zip(given, sides, strict=True)
    ]
  if not splits:
    raise ValueError(
      "data.train_files or data.eval_files must name a source, got none"
    )
  return splits


def run(config: Config, workdir: epath.Path) -> None:
  """Writes eval.json and report.html.

  Args:
    config: the resolved config.
    workdir: gets both files.
  """
  splits = read(config)
  tokenizer = preferences.open_tokenizer(config.data, None)
  pairs = {s.name: found for s in splits if (found := s.pairs)}
  result: dict[str, Any] = {
    "splits": {
      split.name: {
        "sources": _sources(split.report),
        "records": len(split.records),
        "rated": audit_numbers.rated(split.rated),
      }
      for split in splits
    },
    "leakage": None,
    "structure": [],
    "resolution": {},
    "baselines": {},
  }
  for name, found in pairs.items():
    result["splits"][name] |= audit_numbers.describe(
      found,
      tokenizer,
      max_length=config.data.max_length,
      similarity=config.audit.similarity,
      seed=config.seed,
    )
  if pairs:
    result |= _comparisons(config, pairs)
  result["findings"] = [one.text for one in audit.verdicts(result)]
  if multihost.is_main():
    configuration.write_json(workdir / "eval.json", result)
    audit.write(workdir, result, pairs)
    summary.say(
      result["findings"],
      report=workdir / "report.html",
      then=audit.next_command(result),
    )


def _comparisons(
  config: Config, pairs: Mapping[str, list[Record]]
) -> dict[str, Any]:
  """Findings that need pairs: leakage, structure, resolution, baselines."""
  held_out = [*pairs.values()][-1]
  result: dict[str, Any] = {
    "structure": group_structure.find(
      next(iter(pairs.values())),
      num_samples=config.audit.num_samples,
      num_rows=config.audit.num_rows,
      seed=config.seed,
    ),
    "resolution": audit_numbers.resolution(
      held_out,
      accuracy=config.audit.accuracy,
      disagreement=config.audit.disagreement,
      num_bins=config.audit.num_bins,
      seed=config.seed,
    ),
    "baselines": {"always_longer": baselines.always_longer_accuracy(held_out)},
  }
  if len(pairs) == 2:
    result["leakage"] = duplicates.find_leakage(
      pairs["train"], held_out, similarity=config.audit.similarity
    )._asdict()
    bag = baselines.BagOfWords.fit(pairs["train"])
    result["baselines"]["bag_of_words"] = bag.accuracy(held_out)
  return result


def _sources(found: reader.ReadReport) -> list[dict[str, Any]]:
  """Rows read and dropped, per source."""
  return [
    {
      "spec": source.spec,
      "read": source.read,
      "kept": source.kept,
      "skipped": source.skipped,
      "dropped": dict(source.dropped),
    }
    for source in found.sources
  ]


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
