r"""Whom a reward model serves: one page about people, from a file of votes.

python -m jaxalign.experiments.people --config=configs/people.py \
    --config.model=FOLDER --config.data.eval_files="('votes.jsonl',)" \
    --workdir=runs/people
"""

import dataclasses
import json
import logging
import os
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.data.records.record import Record
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reports import people as page
from jaxalign.experiments.reward_model import (
  latent_groups,
  people_scores,
  scoring,
  text_features,
)
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem

log = logging.getLogger("jaxalign")

PEOPLE = "people.jsonl"


@dataclasses.dataclass(frozen=True)
class FeaturesConfig:
  """Where heads for latent groups read the model.

  Attributes:
    layer: blocks that a text goes through before it is read; None for all.
    pooling: "last" token or "mean" over the response.
    cache: folder that keeps features for other runs; None for the workdir's.
    batch_size: texts per forward at the longest length, over all devices.
  """

  layer: int | None = None
  pooling: str = "mean"
  cache: str | None = None
  batch_size: int = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `people` reads.

  Attributes:
    seed: of folds of people, first assignments and resamples.
    model: a folder: a reward model, or a language model whose features a
      pooled head then reads.
    dtype: compute type, "float32" or "bfloat16".
    data: `eval_files` are the votes; `train_files` are not read.
    features: where the model is read.
    groups: how latent groups are fitted.
    people: who is scored, and what is shown.
    batch_size: texts per forward of a reward model, over all devices.
    mesh: devices.
  """

  seed: int = 0
  model: str
  dtype: str = "float32"
  data: preferences.DataConfig
  features: FeaturesConfig = FeaturesConfig()
  groups: latent_groups.GroupsConfig = latent_groups.GroupsConfig()
  people: people_scores.PeopleConfig = people_scores.PeopleConfig()
  batch_size: int = 64
  mesh: meshes.MeshConfig = meshes.MeshConfig()


def own_probabilities(
  config: Config, judged: latent_groups.Judged, mesh: jax.sharding.Mesh
) -> np.ndarray | None:
  """How probably each pair goes as stated by the model's own reward, [N].

  Args:
    config: names the model.
    judged: the pairs.
    mesh: devices.

  Returns:
    A mixture's heads are weighed by their shares; None of a language model.
  """
  folder = filesystem.fetched(config.model, weights=False)
  if weights.load_config(folder).num_outputs is None:
    return None
  data = scoring.fitted(config.data, config.model)
  stage = scoring.build(
    scoring.load_network(config.model, config.dtype),
    mesh,
    config.mesh.rules,
    config.batch_size,
    max(data.buckets),
    scoring.load_readout(config.model),
  )
  tokenizer = preferences.open_tokenizer(data, config.model)
  alone = preferences.each_response(
    data, [Record(prompt, (text,)) for prompt, text in judged.texts], tokenizer
  )
  params = scoring.load_params(stage, config.model)
  rewards = scoring.rewards_of(
    stage, params, alone, data, tokenizer, num_responses=1
  )[:, 0].astype(np.float64)
  shares = scoring.load_mixture_weights(config.model)
  number = rewards.shape[-1]
  each = np.full(number, 1 / number) if shares is None else np.array(shares)
  probs: np.ndarray = np.exp(-np.logaddexp(0, -judged.gaps(rewards))) @ each
  return probs


def run(config: Config, workdir: epath.Path) -> None:
  """Writes eval.json and report.html, and people.jsonl where it is asked for.

  Args:
    config: the resolved config.
    workdir: gets the files, and features unless `features.cache` is elsewhere.

  Raises:
    ValueError: no votes are named, nobody is, or too few people have pairs.
  """
  if not config.data.eval_files:
    raise ValueError("data.eval_files must name a file of votes, got none")
  mesh = meshes.make_mesh(config.mesh)
  records = preferences.load_records(config.data, config.data.eval_files)
  judged = latent_groups.of_records(
    [r for r in records if len(r.responses) == 2]
  )
  cache = config.features.cache
  found = text_features.of_texts(
    config.model,
    judged.texts,
    cache=os.fspath(workdir / "features") if cache is None else cache,
    layer=config.features.layer,
    pooling=config.features.pooling,
    dtype=config.dtype,
    max_length=config.data.max_length,
    batch_size=config.features.batch_size,
    mesh=mesh,
  ).array()
  own = own_probabilities(config, judged, mesh)
  log.info(
    "fitting %s groups of %s people on %s pairs",
    " to ".join(map(str, (min(config.groups.components),
                          max(config.groups.components)))),
    f"{len(judged.people):,}",
    f"{len(judged.user):,}",
  )  # fmt: skip
  served = people_scores.score(
    judged, found, own, config.groups, config.people, config.seed
  )
  result = served.result | {"model": config.model}
  if not multihost.is_main():
    return
  configuration.write_json(workdir / "eval.json", result)
  page.write(workdir, result, served.dots)
  if config.people.save_people:
    filesystem.write_atomically(
      workdir / PEOPLE, _lines(judged, served.dots).encode()
    )
  summary.say(page.findings(result), report=workdir / "report.html")


def _lines(judged: latent_groups.Judged, dots: people_scores.Dots) -> str:
  """A line per person scored."""
  rows: list[dict[str, Any]] = [
    {
      "annotator": judged.people[person],
      "group": int(group) if group >= 0 else None,
      "accuracy": float(before),
      "accuracy_after": float(after),
    }
    for before, after, group, person in zip(*dots, strict=True)
  ]
  return "".join(f"{json.dumps(row)}\n" for row in rows)


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
