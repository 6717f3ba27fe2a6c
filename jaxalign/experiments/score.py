r"""Scoring of records: the same file with rewards of a model.

python -m jaxalign.experiments.score --config=configs/score.py \
    --config.model=runs/rm_bt_crowd/model \
    --config.data.eval_files="('my.jsonl',)" --workdir=runs/scored

Another stage reads the file with `--config.data.extra_columns="('rewards',)"`.
"""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.datasets import preferences, warnings
from jaxalign.experiments.reward_model import scoring
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, filesystem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `score` reads.

  Attributes:
    model: a reward model's folder.
    dtype: compute type, "float32" or "bfloat16".
    calibrated: give (reward − mean) / std on the model's reference responses
      instead of raw rewards; needs its `jaxalign.json`.
    data: `eval_files` are scored, `train_files` are not read.
    batch_size: responses per forward over all devices.
    mesh: devices.
  """

  model: str
  dtype: str = "float32"
  calibrated: bool = False
  data: preferences.DataConfig
  batch_size: int = 64
  mesh: meshes.MeshConfig = meshes.MeshConfig()


def build(config: Config, mesh: jax.sharding.Mesh) -> scoring.Stage:
  """The compiled half of the stage; see `scoring.build`."""
  return scoring.build(
    scoring.load_network(config.model, config.dtype),
    mesh,
    config.mesh.rules,
    config.batch_size,
    max(scoring.fitted(config.data, config.model).buckets),
    scoring.load_readout(config.model),
  )


def run(config: Config, workdir: epath.Path) -> None:
  """Writes `scores.jsonl`: each record with a `rewards` column, [N][K].

  A response is scored alone, so its reward depends on no other response.

  Args:
    config: the resolved config.
    workdir: gets scores.jsonl, one line per record in the order read.
  """
  mesh = meshes.make_mesh(config.mesh)
  fitted = scoring.fitted(config.data, config.model)
  config = dataclasses.replace(config, data=fitted)
  stage = build(config, mesh)
  tokenizer = preferences.open_tokenizer(config.data, config.model)
  tokenizer.check_embedded(stage.network.vocab_size, config.model)
  records = preferences.load_records(
    config.data, config.data.eval_files, tokenizer
  )
  warnings.of_records(tokenizer, (), records)
  alone = preferences.each_response(config.data, records, tokenizer)
  params = scoring.load_params(stage, config.model)
  rewards = scoring.rewards_of(
    stage, params, alone, config.data, tokenizer, num_responses=1
  )[:, 0].astype(np.float64)
  if config.calibrated:
    fit = artifact.load_description(config.model).calibration
    rewards = (rewards - np.array(fit["mean"])) / np.array(fit["std"])
  lines: list[dict[str, Any]] = []
  at = 0
  for record in records:
    scored = rewards[at : at + len(record.responses)]
    at += len(record.responses)
    lines.append(record.to_row() | {"rewards": scored.tolist()})
  if multihost.is_main():
    text = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines)
    filesystem.write_atomically(workdir / "scores.jsonl", text.encode())
    summary.say(
      _findings(lines),
      scores=workdir / "scores.jsonl",
      then=summary.command(
        "evaluate",
        "evaluate",
        f"--config.models={(config.model,)}",
        f"--config.data.eval_files={config.data.eval_files}",
      ),
    )


def _findings(lines: list[dict[str, Any]]) -> list[str]:
  """How the first reward orders what people have ordered."""
  pairs = [
    (line["rewards"][0][0], line["rewards"][1][0])
    for line in lines
    if len(line["rewards"]) == 2
  ]
  number = sum(len(line["rewards"]) for line in lines)
  said = f"{number:,} responses of {len(lines):,} records scored"
  if not pairs:
    return [said]
  above = np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])
  return [
    f"{said}; the chosen one has the higher reward in {100 * above:.1f} % of "
    f"{len(pairs):,} pairs (chance 50 %)"
  ]


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
