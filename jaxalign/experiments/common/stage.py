"""What all stages that train share: the `train` section and a built step."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from etils import epath

from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import train_state
from jaxalign.algorithms import update as contract
from jaxalign.data.batching import loader
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import peft_folders
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks
from jaxalign.runtime import background_compile
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, checkpoint, step_guard
from jaxalign.runtime.profiling import memory


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long, how often, on how much.

  Attributes:
    num_steps: optimiser steps.
    batch_size: rows per step over all devices: pairs, or packed texts.
    accumulation: micro-batches per step; changes memory, not results.
    eval_every: steps between evaluations, None for the end only.
    checkpoint_every: steps between checkpoints; the last step always saves.
    keep_last: most recent checkpoints kept.
    max_bad_steps: steps in a row without finite gradient that stop the run.
    digests: whether a checkpoint has a SHA-256 of each file, checked before it
      is restored.
    trackers: "wandb", "trackio" or both, which show the run's metrics too.
  """

  num_steps: int
  batch_size: int = 32
  accumulation: int = 1
  eval_every: int | None = None
  checkpoint_every: int = 500
  keep_last: int = 2
  max_bad_steps: int = 10
  digests: bool = dataclasses.field(default=True, kw_only=True)
  trackers: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_steps=self.num_steps,
      batch_size=self.batch_size,
      accumulation=self.accumulation,
      checkpoint_every=self.checkpoint_every,
    )
    if self.eval_every is not None and self.eval_every < 1:
      raise ValueError(
        f"eval_every must be >= 1 or None, got {self.eval_every}"
      )


@dataclasses.dataclass(frozen=True)
class PairSchedule(Schedule):
  """The schedule of what learns from pairs, how it runs and what is kept.

  Attributes:
    parallel: "jit" (sharded) or "pmap" (data parallel).
    keep_best: checkpoints of lowest `eval/nll` kept as well.
    export: checkpoint that becomes `model/`: "last" or "best".
  """

  parallel: str = "jit"
  keep_best: int = 1
  export: str = "last"

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    checks.one_of(("jit", "pmap"), parallel=self.parallel)
    checks.one_of(("last", "best"), export=self.export)
    if self.export == "best" and self.keep_best < 1:
      raise ValueError(
        f"export='best' needs keep_best >= 1, got {self.keep_best}"
      )


@dataclasses.dataclass(frozen=True)
class TrainConfig(PairSchedule):
  """The schedule of a reward model, how it runs and what is kept.

  Attributes:
    num_reference: training pairs whose rewards calibrate the exported model.
  """

  num_reference: int = 512

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    checks.at_least(1, num_reference=self.num_reference)


class Stage(NamedTuple):
  """What the loop, the compile stage, golden tests and benchmarks all call.

  Attributes:
    step: jitted `(state, batch, key) -> (state, metrics)`; donates the state.
    state: abstract TrainState with shardings.
    batch: abstract batch of the largest bucket with shardings.
    params: abstract parameters of the network with shardings.
    init: `key -> state`, laid out as `state` says.
    frozen: `key -> state.frozen` as `init` makes it.
    whole: `state -> parameters of the network`.
    network: the decoder's description.
    traces: how often the step was traced.
    passes: what a step does with the batch's tokens, for counting FLOPs.
  """

  step: Callable[..., Any]
  state: train_state.TrainState
  batch: dict[str, jax.ShapeDtypeStruct]
  params: Any
  init: Callable[[jax.Array], train_state.TrainState]
  frozen: Callable[[jax.Array], Any]
  whole: Callable[[train_state.TrainState], Any]
  network: DecoderConfig
  traces: step_guard.TraceCounter
  passes: memory.Passes = memory.TRAINING

  def lower(self) -> jax.stages.Lowered:
    """The step for its abstract arguments, ready to compile.

    Raises:
      ValueError: the step runs under pmap, which compiles for devices that are
        there.
    """
    if not hasattr(self.step, "lower"):
      raise ValueError("train.parallel must be 'jit' to compile ahead of time")
    key = jax.eval_shape(lambda: jax.random.key(0))
    return self.step.lower(self.state, self.batch, key)

  def compiling(self, batch: Mapping[str, Any]) -> "Stage":
    """The stage, whose step another thread compiles for this batch's bucket."""
    rows = self.batch["where"].sharding
    shapes = {
      name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
      for name, array in batch.items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = background_compile.BackgroundCompiled(
      self.step, self.state, shapes, key
    )
    return self._replace(step=step)

  def programs(self) -> tuple[memory.Program, ...]:
    """What the compile stage compiles: the step."""
    state = self.state
    parts = {
      "parameters": (state.params, state.frozen),
      "optimizer": state._replace(params=(), frozen=()),
    }
    step = memory.program_of(
      self.network,
      self.batch,
      name="step",
      lower=self.lower,
      parts=parts,
      passes=self.passes,
    )
    return (step,)


def assemble(
  objective: contract.Objective,
  optimizer: optimizers.OptimizerConfig,
  schedule: Schedule,
  model: heads.Model,
  network: DecoderConfig,
  config: backbone.BackboneConfig,
  shapes: Mapping[str, loader.ArraySpec],
  mesh: jax.sharding.Mesh,
  *,
  rules: tuple[tuple[str, str | None], ...],
  parallel: str = "jit",
  take: contract.Take = contract.at_the_parameters,
  copies: int | None = None,
  schedule_steps: int | None = None,
  features: Callable[[jax.sharding.Sharding], jax.Array] | None = None,
) -> Stage:
  """A stage out of what it optimises, how, and over which devices.

  Args:
    objective: the two phases of a batch's loss.
    optimizer: the `optimizer` section.
    schedule: steps and micro-batches.
    model: the network as pure functions.
    network: its description.
    config: where its parameters come from and which of them are trained.
    shapes: of the largest batch.
    mesh: devices, real or abstract.
    rules: overrides of the logical table.
    parallel: "jit" (sharded) or "pmap" (data parallel).
    take: where and how a step takes its gradient.
    copies: K of what is trained, side by side, whose parameters the objective
      is given as [K, ...]; None for one.
    schedule_steps: of one schedule of the learning rate; None for those of the
      run.
    features: places the features of all texts, for a head alone; None leaves a
      stage that can be compiled and not run.

  Returns:
    The stage.

  Raises:
    ValueError: rows beside the pairs do not fit the mesh.
  """
  pmap = parallel == "pmap"
  trained = backbone.trained(config, network, model, copies)
  chain = optimizers.make_optimizer(
    optimizer,
    num_steps=schedule_steps or schedule.num_steps,
    axes=trained.axes,
  )
  meshes.check_rows(shapes, schedule.accumulation, mesh)
  update = step_guard.TraceCounter(
    contract.make_update(
      objective,
      chain,
      accumulation=schedule.accumulation,
      axis_name="data" if pmap else None,
      whole=trained.whole,
      take=take,
    )
  )
  params = backbone.abstract_params(model)
  laid_out = meshes.parameter_shardings(model.axes, params, mesh, rules)
  keeps = bool(jax.tree.leaves(trained.frozen))
  own = meshes.parameter_shardings(trained.axes, trained.params, mesh, rules)
  still: Any = ()
  if keeps:
    still = meshes.parameter_shardings(
      trained.frozen_axes, trained.frozen, mesh, rules
    )
  shardings = train_state.like_params(
    chain,
    trained.params,
    own,
    meshes.replicated(mesh),
    objective.carry,
    still,
  )
  start = lambda origin, frozen: train_state.init_state(
    trained.start(origin), chain, objective.carry, frozen
  )

  def base(key: jax.Array) -> Any:
    if config.trainable != "head":
      return backbone.initial_params(config, network, model, key, laid_out)
    if features is None:
      raise ValueError("model.trainable='head' needs features to start from")
    return {heads.FEATURES: features(still[heads.FEATURES])}

  def init(key: jax.Array) -> train_state.TrainState:
    place = jax.jit(start, out_shardings=shardings)
    if not keeps:
      return place(base(key), ())
    begun = backbone.initial_trained(config, network, model, key, own)
    return place(begun, base(key))

  whole = jax.eval_shape(trained.whole, trained.params, trained.frozen)
  whole_axes = (
    model.axes if copies is None else backbone.copied_axes(model.axes)
  )
  layout = meshes.parameter_shardings(whole_axes, whole, mesh, rules)
  # A head and its features are put side by side without a copy of them.
  merge = trained.whole
  if config.trainable != "head":
    merge = jax.jit(trained.whole, out_shardings=layout)
  return Stage(
    step=(
      meshes.data_parallel(update, mesh)
      if pmap
      else meshes.sharded(update, shardings, mesh, rules)
    ),
    state=meshes.with_shardings(
      jax.eval_shape(start, trained.origin, trained.frozen), shardings
    ),
    batch=meshes.batch_shapes(shapes, mesh),
    params=meshes.with_shardings(whole, layout),
    init=init,
    frozen=base if keeps else lambda _: (),
    whole=lambda state: (
      merge(state.params, state.frozen) if keeps else state.params
    ),
    network=network,
    traces=update,
  )


def checkpoints(
  workdir: epath.Path, schedule: Schedule, keep_best: int = 0
) -> checkpoint.Checkpoints:
  """The checkpoints of a run, to be entered.

  Args:
    workdir: of the run.
    schedule: how many last ones are kept.
    keep_best: those of lowest `eval/nll` that are kept as well.
  """
  return checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=schedule.keep_last,
    keep_best=keep_best,
    best_metric="eval/nll",
    digests=schedule.digests,
  )


def restore(
  stage: Stage, saved: checkpoint.Checkpoints, step: int, seed: int
) -> train_state.TrainState:
  """The state of a checkpoint, with what checkpoints do not hold.

  Args:
    stage: the built step.
    saved: the checkpoints.
    step: a complete step.
    seed: of the run.

  Returns:
    The state as it was after that step.
  """
  init_key, _ = jax.random.split(jax.random.key(seed))
  state = saved.restore(step, stage.state._replace(frozen=()))
  return state._replace(frozen=stage.frozen(init_key))


def export(
  stage: Stage,
  config: backbone.BackboneConfig,
  state: train_state.TrainState,
  workdir: epath.Path,
  tokenizer: Tokenizer,
  description: artifact.Description,
) -> None:
  """Writes `model/` and, where adapters were trained, `adapters/` beside it.

  Args:
    stage: the built step.
    config: the `model` section.
    state: what was trained.
    workdir: of the run.
    tokenizer: saved beside the weights.
    description: content of `jaxalign.json`.
  """
  params = multihost.fetch(stage.whole(state))
  if config.lora is not None and peft_folders.fits(config, stage.network):
    adapters, base = multihost.fetch((state.params, state.frozen))
    if multihost.is_main():
      peft_folders.save(
        workdir / "adapters", config, stage.network, adapters, base
      )
  if multihost.is_main():
    artifact.save(
      workdir / "model", params, stage.network, tokenizer, description
    )


def export_copies(
  stage: Stage,
  config: backbone.BackboneConfig,
  state: train_state.TrainState,
  folders: Mapping[str, artifact.Description],
  workdir: epath.Path,
  tokenizer: Tokenizer,
) -> list[epath.Path]:
  """Writes each of K copies as a model of its own.

  Args:
    stage: the built step, of copies.
    config: the `model` section.
    state: what was trained, [K, ...].
    folders: content of each `jaxalign.json`, by its folder in the workdir such
      as "models/NAME"; adapters go to `adapters/NAME`.
    workdir: of the run.
    tokenizer: saved beside the weights.

  Returns:
    The folders.
  """
  params = multihost.fetch(stage.whole(state))
  adapted = config.lora is not None
  adapted = adapted and peft_folders.fits(config, stage.network)
  adapters, base = (
    multihost.fetch((state.params, state.frozen)) if adapted else ({}, None)
  )
  for k, (place, description) in enumerate(folders.items()):
    if not multihost.is_main():
      break
    own = functools.partial(jax.tree.map, lambda leaf, k=k: leaf[k])
    if adapted:
      name = place.rpartition("/")[2]
      peft_folders.save(
        workdir / "adapters" / name, config, stage.network, own(adapters), base
      )
    artifact.save(
      workdir / place, own(params), stage.network, tokenizer, description
    )
  return [workdir / place for place in folders]


def every(step: int, period: int | None) -> bool:
  """Whether a period ends at this step; None never does."""
  return period is not None and step % period == 0
