r"""RewardBench, versions 1 and 2: scores of a reward model, section by section.

python -m jaxalign.experiments.reward_bench --config=configs/reward_bench.py \
    --config.source.models="('runs/rm/model',)" --workdir=runs/reward_bench
"""

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from jaxalign.data.records import reader
from jaxalign.data.records.record import Record
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import reward_source
from jaxalign.experiments.reports import reward_bench
from jaxalign.experiments.reward_model import benchmark_scores
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import progress_bar
from jaxalign.runtime.reward_sources import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `reward_bench` reads.

  Attributes:
    files: rows of RewardBench: `hub:allenai/reward-bench::filtered`,
      `hub:allenai/reward-bench-2::test`, or files in their columns as
      `allenai/reward-bench:GLOB` and `allenai/reward-bench-2:GLOB`.
    source: what is judged; each of its outputs by itself.
    chunk: prompts that are scored at a time, for the bar.
    mesh: devices of the source's models.
  """

  files: tuple[str, ...]
  source: reward_source.RewardSourceConfig
  chunk: int = 256
  mesh: meshes.MeshConfig = meshes.MeshConfig()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(1, chunk=self.chunk)


def run(config: Config, workdir: epath.Path) -> None:
  """Writes eval.json and report.html.

  Args:
    config: the resolved config.
    workdir: gets the files.

  Raises:
    ValueError: the files are of no version, or of both.
    RewardError: the source gave up.
  """
  records = list(reader.RecordStream(config.files, drop_unusable=False))
  version = benchmark_scores.version_of(records)
  source = reward_source.open_source(
    config.source, meshes.make_mesh(config.mesh), config.mesh.rules
  )
  rewards = _rewards(records, source, config.chunk)
  outputs: dict[str, Any] = {
    name: benchmark_scores.scores_of(
      records, [each[:, k] for each in rewards], version
    )._asdict()
    for k, name in enumerate(source.names)
  }
  result = {"version": version, "outputs": outputs}
  if not multihost.is_main():
    return
  configuration.write_json(workdir / "eval.json", result)
  reward_bench.write(workdir, result)
  summary.say([reward_bench.headline(result)], report=workdir / "report.html")


def _rewards(
  records: list[Record], source: base.RewardSource, chunk: int
) -> list[np.ndarray]:
  """Rewards of each record's responses, [N_i, K] each."""
  found: list[np.ndarray] = []
  starts = range(0, len(records), chunk)
  for at in progress_bar.watched(
    starts, total=len(starts), what="scoring answers"
  ):
    part = records[at : at + chunk]
    rows = source(
      [record.prompt for record in part for _ in record.responses],
      [text for record in part for text in record.responses],
    )
    ends = np.cumsum([len(record.responses) for record in part])
    found += np.split(rows, ends[:-1])
  return found


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
