r"""Denoising of preferences: the records with an ensemble's strength per pair.

python -m jaxalign.experiments.denoise --config=configs/denoise_crowd.py \
    --workdir=runs/denoise_crowd
"""

import contextlib
import dataclasses
import gzip
import json
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.data.batching import ensemble_loader, loader
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import cli, loop, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reports import denoise, denoise_numbers
from jaxalign.experiments.reward_model import (
  ensembles,
  frozen_backbone,
  pair_scores,
  scoring,
)
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import checkpoint, filesystem, progress_bar


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
  """Ensemble size, and how much of its judgement the page shows.

  Attributes:
    num_members: M, models that differ in the order of their data and in what
      they begin with: the reward head, all weights where none are read.
    batch_size: pairs per forward of all members when they are scored.
    fraction: share of the weakest pairs that are compared with a second judge,
      in (0, 1].
    num_shown: pairs of each kind on the page.
    at_once: members side by side in a program, a divisor of num_members;
      None for all. Fewer hold less memory, and results are the same.
  """

  num_members: int = 10
  batch_size: int = 64
  fraction: float = 0.1
  num_shown: int = 20
  at_once: int | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_members=self.num_members,
      batch_size=self.batch_size,
      num_shown=self.num_shown,
    )
    if self.together < 1 or self.num_members % self.together:
      raise ValueError(
        f"at_once must divide num_members {self.num_members}, got "
        f"{self.at_once}"
      )
    if not 0 < self.fraction <= 1:
      raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")

  @property
  def together(self) -> int:
    """Members trained side by side."""
    return self.num_members if self.at_once is None else self.at_once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `denoise` reads.

  Attributes:
    seed: of the initial weights and the order of the data; each member has its
      own, derived from it.
    data: preference pairs and how they are tokenised.
    model: the pretrained folder or the sizes of a model from scratch.
    loss: how a pair becomes a loss.
    optimizer: AdamW and its schedule, of each member.
    train: steps, batches, evaluations and checkpoints.
    ensemble: how many models there are and what the page shows of them.
    mesh: devices per axis.
  """

  seed: int = 0
  data: preferences.DataConfig
  model: backbone.BackboneConfig
  loss: bradley_terry.PairLossConfig = bradley_terry.PairLossConfig()
  optimizer: optimizers.OptimizerConfig
  train: training.Schedule
  ensemble: EnsembleConfig = EnsembleConfig()
  mesh: meshes.MeshConfig = meshes.MeshConfig()

  def __post_init__(self) -> None:
    """Raises ValueError where the loss reads what this stage is to find."""
    if self.loss.denoise is not None:
      raise ValueError(
        "loss.denoise must be None in the denoise stage, which finds the "
        f"strengths that it reads, got {self.loss.denoise}; set it in the "
        "config of train_reward"
      )


def build(
  config: Config,
  mesh: jax.sharding.Mesh,
  place: Callable[[jax.sharding.Sharding], jax.Array] | None = None,
) -> training.Stage:
  """The compiled half of the stage: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.
    place: puts the features of all texts on devices, for heads alone.

  Returns:
    The step of all members and its abstract arguments, [M, ...].

  Raises:
    ValueError: batch, model and mesh do not fit, before anything is compiled.
  """
  train = config.train
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = preferences.open_tokenizer(config.data, config.model.init_from)
  network, buckets = _network(config, tokenizer), config.data.buckets
  if config.model.trainable == "head":
    buckets = frozen_backbone.BUCKETS
    network = dataclasses.replace(network, num_texts=config.model.num_texts)
  model = heads.reward_model(network)
  one = training.assemble(
    bradley_terry.bradley_terry(
      model.apply, config.loss, dropout=network.dropout > 0
    ),
    config.optimizer,
    train,
    model,
    network,
    config.model,
    loader.pair_shapes(train.batch_size, max(buckets)),
    mesh,
    rules=config.mesh.rules,
    features=place,
  )
  return ensembles.replicate(
    one,
    mesh,
    config.mesh.rules,
    config.ensemble.num_members,
    config.ensemble.together,
  )


def _network(config: Config, tokenizer: Tokenizer) -> DecoderConfig:
  """The description of one member as a whole."""
  return backbone.decoder_config(
    config.model, tokenizer, max_length=config.data.max_length, num_outputs=1
  )


def frozen_texts(
  config: Config,
  pairs: preferences.Pairs,
  held_out: preferences.Pairs | None,
  tokenizer: Tokenizer,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
) -> tuple[Config, preferences.Pairs, preferences.Pairs | None, Any]:
  """Texts passed once, as `fitting.frozen_texts`: config, pairs and `place`."""
  given = [pairs] if held_out is None else [pairs, held_out]
  texts = frozen_backbone.read(
    config.model,
    _network(config, tokenizer),
    [one.dataset.sequences for one in given],
    tokenizer,
    workdir=workdir,
    batch_size=config.ensemble.batch_size,
    buckets=config.data.buckets,
    mesh=mesh,
    rules=config.mesh.rules,
  )
  config = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, num_texts=texts.number),
    data=dataclasses.replace(config.data, buckets=frozen_backbone.BUCKETS),
  )
  pairs, *rest = map(texts.pairs, given)
  return config, pairs, rest[0] if rest else None, texts.place


def run(config: Config, workdir: epath.Path) -> None:
  """Trains the ensemble, resuming where it left off, and scores all pairs.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, train.jsonl.gz and,
      with held-out records, eval.jsonl.gz: the records with `strength` and
      `strength_std`, rankings as their pairs; eval.json and report.html.
  """
  checkpoint.check_directory(workdir)
  data, settings = config.data, config.ensemble
  mesh = meshes.make_mesh(config.mesh)
  head, place = config.model.trainable == "head", None
  if not head:
    build(config, mesh)  # what does not fit ends the run before data is read
  tokenizer = preferences.open_tokenizer(data, config.model.init_from)
  pairs, held_out = preferences.load_splits(data, tokenizer, share=not head)
  if head:
    config, pairs, held_out, place = frozen_texts(
      config, pairs, held_out, tokenizer, mesh, workdir
    )
    data = config.data
  stage = build(config, mesh, place)
  final = frozen_backbone.exported(config.model, stage.network)
  scorer = ensembles.score_stage(
    stage._replace(network=final),
    mesh,
    config.mesh.rules,
    settings.batch_size,
    max(data.buckets),
    settings.together,
  )
  rewards_of = scoring.outputs_by(scorer, data, tokenizer, held_out)
  measure = None
  if held_out is not None:
    measure = lambda params: scoring.quick_scores(
      rewards_of(params, held_out).mean(axis=-1, keepdims=True)
    )
  members = [
    preferences.make_batches(
      data,
      pairs,
      tokenizer,
      config.train.batch_size,
      seed=config.seed * settings.num_members + member,
      shuffle=True,
    )
    for member in range(settings.num_members)
  ]
  with training.checkpoints(workdir, config.train) as saved:
    _, params = loop.fit(
      stage,
      ensemble_loader.MemberBatches(members),
      config.train,
      saved,
      workdir,
      seed=config.seed,
      prefetch=data.prefetch,
      measure=measure,
    )
  given = {"train": pairs}
  if held_out is not None:
    given["eval"] = held_out
  splits = {
    name: denoise_numbers.split_of(
      rewards_of(params, some),
      [r.judge_prob for r in some.records],
      pair_scores.clusters_of(some.dataset.annotator),
    )
    for name, some in given.items()
  }
  if multihost.is_main():
    _write(config, workdir, given, splits)
  multihost.barrier("denoise")


def _write(
  config: Config,
  workdir: epath.Path,
  given: dict[str, preferences.Pairs],
  splits: dict[str, denoise_numbers.Split],
) -> None:
  """Everything that the scores say, to files."""
  chosen = denoise_numbers.suspects(splits["train"], config.ensemble.num_shown)
  picked = {int(row) for rows in chosen.values() for row in rows}
  found = {}
  for name, pairs in given.items():
    shown = write_records(
      workdir / f"{name}.jsonl.gz",
      pairs,
      splits[name],
      picked if name == "train" else set(),
    )
    found.update(shown)
  results = {
    name: denoise_numbers.summarise(split, config.ensemble.fraction)
    for name, split in splits.items()
  }
  configuration.write_json(workdir / "eval.json", results)
  denoise.write(
    workdir,
    results,
    splits,
    {kind: [found[int(row)] for row in rows] for kind, rows in chosen.items()},
    given["train"].warnings,
  )
  clean = workdir / "train.jsonl.gz"
  summary.say(
    [denoise.headline(results)],
    records=clean,
    report=workdir / "report.html",
    then=summary.command(
      "train_reward",
      "rm_denoised_crowd",
      f"--config.data.train_files={(str(clean),)}",
    ),
  )


def write_records(
  path: epath.Path,
  pairs: preferences.Pairs,
  split: denoise_numbers.Split,
  picked: set[int],
) -> dict[int, denoise.Shown]:
  """Writes records with their strengths, one at a time.

  Args:
    path: a .jsonl.gz file.
    pairs: the records, a list or a stream.
    split: their strengths.
    picked: row numbers to hand back.

  Returns:
    The picked rows.
  """
  found = {}
  with contextlib.ExitStack() as files:
    raw = files.enter_context(filesystem.replaced(path))
    # Without name and time, so that equal records are equal bytes.
    packed = files.enter_context(
      gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    )
    passing = progress_bar.watched(
      pairs.records, total=len(split.strength), what=f"writing {path.name}"
    )
    for i, record in enumerate(passing):
      strength, std = float(split.strength[i]), float(split.std[i])
      scored = dataclasses.replace(record, strength=strength, strength_std=std)
      packed.write(f"{json.dumps(scored.to_row(), allow_nan=False)}\n".encode())
      if i in picked:
        found[i] = denoise.Shown(record, strength, std)
  return found


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run, resumes=True)


if __name__ == "__main__":
  main()
