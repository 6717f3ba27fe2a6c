r"""Preferences in, a reward model out.

python -m jaxalign.experiments.train_reward \
      --config=configs/rm_bt_crowd.py --workdir=runs/rm_bt_crowd
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
from absl import flags
from etils import epath

from jaxalign.algorithms import contract, reward
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.data import batches, tokens
from jaxalign.experiments import (
  backbone,
  evaluate,
  preferences,
  program,
  scoring,
  training,
)
from jaxalign.models import heads
from jaxalign.runtime import abstract, artefact, checkpoint, hosts, loop, writer
from jaxalign.runtime import mesh as meshes

log = logging.getLogger("jaxalign")

PROFILE_AFTER, PROFILE_STEPS = 10, 5


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `train_reward` reads."""

  seed: int
  data: preferences.DataConfig
  model: backbone.BackboneConfig
  loss: reward.PairLossConfig
  optimizer: optimizers.OptimizerConfig
  train: training.TrainConfig
  mesh: meshes.MeshConfig
  eval: evaluate.EvalConfig


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
  tokenizer = preferences.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model,
    tokenizer,
    max_length=config.data.max_length,
    num_outputs=1,
  )
  model = heads.reward_model(network)
  optimizer = optimizers.make_optimizer(
    config.optimizer, num_steps=train.num_steps, axes=model.axes
  )
  objective = reward.bradley_terry(
    model.apply, config.loss, dropout=network.dropout > 0
  )
  pmap = train.parallel == "pmap"
  update = loop.TraceCounter(
    contract.make_update(
      objective,
      optimizer,
      accumulation=train.accumulation,
      axis_name="data" if pmap else None,
    )
  )
  params = backbone.abstract_params(model)
  shardings = contract.like_params(
    optimizer,
    params,
    meshes.parameter_shardings(model.axes, params, mesh, config.mesh.rules),
    meshes.replicated(mesh),
    objective.carry,
  )
  start = lambda params: contract.init_state(params, optimizer, objective.carry)
  step = (
    meshes.data_parallel(update, mesh)
    if pmap
    else meshes.sharded(update, shardings, mesh, config.mesh.rules)
  )

  def init(key: jax.Array) -> contract.TrainState:
    params = backbone.initial_params(
      config.model, network, model, key, shardings.params
    )
    return jax.jit(start, out_shardings=shardings)(params)

  return training.Stage(
    step=step,
    state=abstract.with_shardings(jax.eval_shape(start, params), shardings),
    batch=abstract.batch_shapes(
      batches.pair_shapes(train.batch_size, max(config.data.buckets)), mesh
    ),
    init=init,
    network=network,
    traces=update,
  )


def run(config: Config, workdir: epath.Path, *, profile: bool) -> None:
  """Trains, resuming where `workdir` left off, and writes `model/`.

  Every part is safe to repeat: a run that was killed after its last step goes
  straight to the final evaluation and export.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, model/ and, with
      held-out records, eval.json and report.html.
    profile: write a trace of a few steps to `workdir/profile`.
  """
  train, data = config.train, config.data
  if train.export == "best" and not data.holds_out:
    raise ValueError(
      "train.export='best' needs data.eval_files or data.eval_fraction"
    )
  mesh = meshes.make_mesh(config.mesh)
  stage = build(config, mesh)
  tokenizer = preferences.open_tokenizer(data, config.model.init_from)
  pairs, held_out = preferences.load_splits(data, tokenizer)
  scorer = scoring.build(
    stage.network,
    mesh,
    config.mesh.rules,
    config.eval.batch_size,
    max(data.buckets),
  )
  rewards_of = lambda params, pairs: scoring.rewards_of(
    scorer, params, pairs, data, tokenizer
  )
  measure = lambda params: (
    None
    if held_out is None
    else scoring.quick_scores(rewards_of(params, held_out))
  )
  with checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=train.keep_last,
    keep_best=train.keep_best if data.holds_out else 0,
    best_metric="eval/nll",
  ) as saved:
    step, state = _train(
      config, stage, pairs, tokenizer, measure, saved, workdir, profile
    )
    if train.export == "best":
      step = saved.best()
      state = saved.restore(step, stage.state)
  # On every host: rewards and parameters are gathered from all of them.
  reference = preferences.first(data, pairs, train.num_reference, tokenizer)
  description = artefact.Description(
    kind="reward",
    heads=("reward",),
    max_length=data.max_length,
    calibration=artefact.calibration(rewards_of(state.params, reference)),
    utilities=None,
    mixture_weights=None,
    provenance=artefact.provenance(config, step),
  )
  params = hosts.fetch(state.params)
  if hosts.is_main():
    artefact.save(
      workdir / "model", params, stage.network, tokenizer, description
    )
  if held_out is not None:
    evaluate.write_evaluation(
      workdir,
      {"model": rewards_of(state.params, held_out)},
      held_out,
      # A bag of words would hold all texts in memory.
      None if data.streaming else pairs,
      config.eval,
      config.seed,
    )
  hosts.barrier("train_reward")


def _train(
  config: Config,
  stage: training.Stage,
  pairs: preferences.Pairs,
  tokenizer: tokens.Tokenizer,
  measure: Callable[[Any], dict[str, float] | None],
  saved: checkpoint.Checkpoints,
  workdir: epath.Path,
  profile: bool,
) -> tuple[int, contract.TrainState]:
  """The loop, from the last checkpoint to the last step."""
  train, data = config.train, config.data
  init_key, step_key = jax.random.split(jax.random.key(config.seed))
  start = saved.latest() or 0
  state = saved.restore(start, stage.state) if start else stage.init(init_key)
  log.info("starting at step %d of %d", start, train.num_steps)
  source = preferences.make_batches(
    data, pairs, tokenizer, train.batch_size, seed=config.seed, shuffle=True
  )
  stream = batches.batch_iterator(
    source,
    start_step=start,
    num_steps=train.num_steps - start,
    prefetch=data.prefetch,
  )
  rows = stage.batch["where"].sharding
  guard = loop.StepGuard(train.max_bad_steps)
  profiler = loop.Profiler(
    workdir / "profile" if profile else None,
    max(1, min(PROFILE_AFTER, train.num_steps - start - PROFILE_STEPS + 1))
    + start,
    PROFILE_STEPS,
  )
  with writer.MetricWriter(
    workdir,
    start_step=start,
    num_steps=train.num_steps,
    is_main=hosts.is_main(),
  ) as report:
    for step, batch in enumerate(stream, start + 1):
      profiler.before(step)
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, metrics = stage.step(
          state, hosts.global_batch(batch, rows), step_key
        )
      profiler.after(step, state)
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
      scores = measure(state.params) if score_due else None
      if scores is not None:
        report.write(step, scores)
      report.write_speed(step, report.speed())
      report.flush()
      if save_due:
        saved.save(step, state, scores)
  profiler.close()
  log.info("the step was compiled %d times", stage.traces.count)
  return train.num_steps, state


def main() -> None:
  """Runs the stage from the command line."""
  program.define_flags()
  flags.DEFINE_bool("profile", False, "Write a trace of a few steps.")
  program.main(Config, run, profile=lambda: flags.FLAGS.profile)


if __name__ == "__main__":
  main()
