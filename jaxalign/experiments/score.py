r"""Scoring of records: the same file with rewards of a model.

python -m jaxalign.experiments.score --config=configs/score.py \
    --config.model=runs/rm_bt_crowd/model \
    --config.data.eval_files="('my.jsonl',)" --workdir=runs/scored

Another stage reads the file with `--config.data.extra_columns="('rewards',)"`.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import reward_readout
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences, warnings
from jaxalign.experiments.policy import label_shares
from jaxalign.experiments.reward_model import scoring, user_assignment
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, filesystem
from jaxalign.runtime.reward_sources.labels import Labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `score` reads.

  Attributes:
    model: a reward model's folder.
    dtype: compute type, "float32" or "bfloat16".
    calibrated: give (reward − mean) / std on the model's reference responses
      instead of raw rewards; needs its `jaxalign.json`.
    data: `eval_files` are scored, `train_files` are not read.
    person_files: pairs of one new person; each response then also gets that
      person's reward: of a mixture of the model's heads, or of a place among
      its factors. Empty for none.
    batch_size: responses per forward over all devices.
    mesh: devices.
  """

  model: str
  dtype: str = "float32"
  calibrated: bool = False
  data: preferences.DataConfig
  person_files: tuple[str, ...] = ()
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
    reward_readout.with_parts(scoring.load_readout(config.model)),
  )


def run(config: Config, workdir: epath.Path) -> None:
  """Writes `scores.jsonl`: each record with a `rewards` column, [N][K].

  A response is scored alone, so its reward depends on no other response. With
  `person_files` there is a column `person_rewards`, [N]; of a model that
  predicts labels a column `label_probs`, [N][d].

  Args:
    config: the resolved config.
    workdir: gets scores.jsonl, one line per record in the order read, and of a
      model that predicts labels labels.json, their shares over all records.

  Raises:
    ValueError: a person for whom the model has one head, or no pairs.
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
  params = scoring.load_params(stage, config.model)
  read = scoring.load_readout(config.model)
  number = read.num_rewards(stage.network.num_outputs or 0)

  def rewards_of(scored: list[Record]) -> np.ndarray:
    alone = preferences.each_response(config.data, scored, tokenizer)
    return scoring.rewards_of(
      stage, params, alone, config.data, tokenizer, num_responses=1
    )[:, 0].astype(np.float64)

  person = None
  if config.person_files:
    person = _person(config, number, tokenizer, rewards_of)
  # Label shares or factors stand behind the rewards.
  rewards, parts = np.split(rewards_of(records), [number], axis=1)
  if config.calibrated:
    fit = artifact.load_description(config.model).calibration
    rewards = (rewards - np.array(fit["mean"])) / np.array(fit["std"])
    if read.kind in reward_readout.PERSONAL:
      parts = parts / np.array(fit["std"])
  lines: list[dict[str, Any]] = []
  at = 0
  for record in records:
    rows = slice(at, at + len(record.responses))
    scored, beside = rewards[rows], parts[rows]
    at += len(record.responses)
    line = record.to_row() | {"rewards": scored.tolist()}
    if person is not None:
      line["person_rewards"] = person.rewards(scored, beside).tolist()
    if read.kind == "labels":
      line["label_probs"] = beside.tolist()
    lines.append(line)
  if multihost.is_main():
    text = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines)
    filesystem.write_atomically(workdir / "scores.jsonl", text.encode())
    labels = []
    if read.kind == "labels":
      found = _labels(config, lines)
      configuration.write_json(workdir / "labels.json", found)
      labels = [label_shares.in_words(found)]
    summary.say(
      [*_findings(lines), *_placed(person), *labels],
      scores=workdir / "scores.jsonl",
      then=summary.command(
        "evaluate",
        "evaluate",
        f"--config.models={(config.model,)}",
        f"--config.data.eval_files={config.data.eval_files}",
      ),
    )


def _person(
  config: Config,
  num_rewards: int,
  tokenizer: Tokenizer,
  rewards_of: Callable[[list[Record]], np.ndarray],
) -> user_assignment.Person:
  """How the person of `person_files` weighs heads, or factors."""
  personal = scoring.load_readout(config.model).kind in reward_readout.PERSONAL
  if num_rewards < 2 and not personal:
    raise ValueError(
      f"person_files mix the heads of a model, {config.model} has one: train "
      "it with recipe.name='mixture' or 'personal'"
    )
  records = preferences.load_records(
    config.data, config.person_files, tokenizer
  )
  pairs = [r for r in records if len(r.responses) == 2 and not r.tie]
  names = {record.annotator for record in pairs}
  if not pairs or len(names) > 1:
    raise ValueError(
      "person_files must hold pairs of one person, got "
      f"{len(pairs)} pairs by {len(names)}"
    )
  rewards = rewards_of(pairs).reshape(len(pairs), 2, -1)
  sides = np.array([1.0 if r.target_prob > 0.5 else -1.0 for r in pairs])
  gaps = (rewards[:, 0] - rewards[:, 1]) * sides[:, None]
  if personal:
    return user_assignment.person_of(gaps[:, :1], gaps[:, 1:], ())
  shares = scoring.load_mixture_weights(config.model)
  even = (1 / num_rewards,) * num_rewards
  return user_assignment.person_of(gaps, None, shares or even)


def _labels(config: Config, lines: list[dict[str, Any]]) -> dict[str, Any]:
  """Shares of each label, a record being the mean of its responses."""
  described = artifact.load_description(config.model)
  each = [np.mean(line["label_probs"], axis=0) for line in lines]
  return label_shares.summarise(
    np.array(each), Labels(described.heads, described.utilities or ())
  )


def _placed(person: user_assignment.Person | None) -> list[str]:
  """Where the person was placed."""
  if person is None:
    return []
  if person.factors is not None:
    place = ", ".join(f"{number:.2f}" for number in person.factors)
    return [f"the person's place among {len(person.factors)} factors: {place}"]
  shares = " / ".join(f"{100 * share:.0f} %" for share in person.heads)
  return [f"the person's mixture of {len(person.heads)} heads: {shares}"]


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
