r"""Prompts with answers in, a policy that answers like them out.

python -m jaxalign.experiments.sft --config=configs/sft_crowd.py \
    --workdir=runs/sft_crowd
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from jaxalign.algorithms import contract, language
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.data import batches, packed, tokens
from jaxalign.experiments import (
  backbone,
  configuration,
  likelihood,
  program,
  texts,
  training,
)
from jaxalign.models import heads
from jaxalign.runtime import abstract, artefact, checkpoint, hosts, loop, writer
from jaxalign.runtime import mesh as meshes

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True)
class TuneConfig:
  """How long, how often, on how much.

  Attributes:
    num_steps: optimiser steps.
    batch_size: packed rows per step over all devices.
    accumulation: micro-batches per step; changes memory, not results.
    eval_every: steps between evaluations, None for the end only.
    checkpoint_every: steps between checkpoints; the last step always saves.
    keep_last: most recent checkpoints kept.
    max_bad_steps: steps in a row without finite gradient that stop the run.
  """

  num_steps: int
  batch_size: int
  accumulation: int
  eval_every: int | None
  checkpoint_every: int
  keep_last: int
  max_bad_steps: int

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    for name in ("num_steps", "batch_size", "accumulation", "checkpoint_every"):
      if self.__dict__[name] < 1:
        raise ValueError(f"{name} must be >= 1, got {self.__dict__[name]}")
    if self.eval_every is not None and self.eval_every < 1:
      raise ValueError(
        f"eval_every must be >= 1 or None, got {self.eval_every}"
      )


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `sft` reads."""

  seed: int
  data: texts.TextConfig
  model: backbone.BackboneConfig
  optimizer: optimizers.OptimizerConfig
  train: TuneConfig
  mesh: meshes.MeshConfig


def build(config: Config, mesh: jax.sharding.Mesh) -> training.Stage:
  """The compiled half of the stage: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.

  Returns:
    The stage's step and abstract arguments.

  Raises:
    ValueError: batch, model and mesh do not fit, before anything is compiled.
  """
  train = config.train
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = texts.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model, tokenizer, max_length=config.data.length, num_outputs=None
  )
  model = heads.causal_lm(network)
  optimizer = optimizers.make_optimizer(
    config.optimizer, num_steps=train.num_steps, axes=model.axes
  )
  log_probs = likelihood.answer_log_probs(
    network, model, dropout=network.dropout > 0
  )
  update = loop.TraceCounter(
    contract.make_update(
      language.answer_likelihood(log_probs),
      optimizer,
      accumulation=train.accumulation,
    )
  )
  params = backbone.abstract_params(model)
  shardings = contract.like_params(
    optimizer,
    params,
    meshes.parameter_shardings(model.axes, params, mesh, config.mesh.rules),
    meshes.replicated(mesh),
  )
  start = lambda params: contract.init_state(params, optimizer)

  def init(key: jax.Array) -> contract.TrainState:
    params = backbone.initial_params(
      config.model, network, model, key, shardings.params
    )
    return jax.jit(start, out_shardings=shardings)(params)

  return training.Stage(
    step=meshes.sharded(update, shardings, mesh, config.mesh.rules),
    state=abstract.with_shardings(jax.eval_shape(start, params), shardings),
    batch=abstract.batch_shapes(
      texts.text_shapes(train.batch_size, config.data.length), mesh
    ),
    init=init,
    network=network,
    traces=update,
  )


def run(config: Config, workdir: epath.Path) -> None:
  """Trains, resuming where `workdir` left off, and writes `model/`.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, model/ and, with
      `data.eval_files`, eval.json.
  """
  mesh = meshes.make_mesh(config.mesh)
  stage = build(config, mesh)
  tokenizer = texts.open_tokenizer(config.data, config.model.init_from)
  dataset = texts.load_texts(config.data, config.data.train_files, tokenizer)
  measure = None
  if config.data.eval_files:
    held_out = texts.load_texts(config.data, config.data.eval_files, tokenizer)
    measure = likelihood.make_measure(
      config.data, config.mesh.rules, stage, mesh, held_out, tokenizer
    )
  with checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=config.train.keep_last,
    keep_best=0,
    best_metric="eval/nll",
  ) as saved:
    state = _train(config, stage, dataset, tokenizer, measure, saved, workdir)
  description = artefact.Description(
    kind="policy",
    heads=(),
    max_length=config.data.length,
    calibration=None,
    utilities=None,
    mixture_weights=None,
    provenance=artefact.provenance(config, config.train.num_steps),
  )
  scores = None if measure is None else measure(state.params)
  params = hosts.fetch(state.params)
  if hosts.is_main():
    artefact.save(
      workdir / "model", params, stage.network, tokenizer, description
    )
    if scores is not None:
      configuration.write_json(workdir / "eval.json", scores)
  hosts.barrier("sft")


def _train(
  config: Config,
  stage: training.Stage,
  dataset: packed.PackedDataset,
  tokenizer: tokens.Tokenizer,
  measure: Callable[[Any], dict[str, float]] | None,
  saved: checkpoint.Checkpoints,
  workdir: epath.Path,
) -> contract.TrainState:
  """The loop, from the last checkpoint to the last step."""
  train, data = config.train, config.data
  init_key, step_key = jax.random.split(jax.random.key(config.seed))
  start = saved.latest() or 0
  state = saved.restore(start, stage.state) if start else stage.init(init_key)
  log.info("starting at step %d of %d", start, train.num_steps)
  source = texts.make_batches(
    data, dataset, tokenizer, train.batch_size, seed=config.seed, shuffle=True
  )
  stream = batches.batch_iterator(
    source,
    start_step=start,
    num_steps=train.num_steps - start,
    prefetch=data.prefetch,
  )
  rows = stage.batch["where"].sharding
  guard = loop.StepGuard(train.max_bad_steps)
  with writer.MetricWriter(
    workdir,
    start_step=start,
    num_steps=train.num_steps,
    is_main=hosts.is_main(),
  ) as report:
    for step, batch in enumerate(stream, start + 1):
      state, metrics = stage.step(
        state, hosts.global_batch(batch, rows), step_key
      )
      previous = guard.exchange(step, metrics, batch["index"])
      if previous is not None:
        report.write(*previous)
        report.advance(
          step,
          tokens=int(batch["mask"].sum()) * jax.process_count(),
          loss=previous[1]["train/loss"],
        )
      last = step == train.num_steps
      score_due = last or training.every(step, train.eval_every)
      save_due = last or training.every(step, train.checkpoint_every)
      if not score_due and not save_due:
        continue
      # What a checkpoint's step has measured is on disk before the checkpoint.
      report.write(*guard.flush())
      if score_due and measure is not None:
        report.write(step, measure(state.params))
      report.write_speed(step, report.speed())
      report.flush()
      if save_due:
        saved.save(step, state, None)
  log.info("the step was compiled %d times", stage.traces.count)
  return state


def main() -> None:
  """Runs the stage from the command line."""
  program.define_flags()
  program.main(Config, run)


if __name__ == "__main__":
  main()
