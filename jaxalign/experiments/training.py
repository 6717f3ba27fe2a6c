"""What all stages that train share: the `train` section and a built step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxalign.algorithms import contract
from jaxalign.data import batches
from jaxalign.experiments import backbone
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks
from jaxalign.runtime import abstract, loop
from jaxalign.runtime import mesh as meshes


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
class TrainConfig(Schedule):
  """The schedule of a reward model, how it runs and what is kept.

  Attributes:
    parallel: "jit" (sharded) or "pmap" (data parallel).
    keep_best: checkpoints of lowest `eval/nll` kept as well.
    export: checkpoint that becomes `model/`: "last" or "best".
    num_reference: training pairs whose rewards calibrate the exported model.
  """

  parallel: str
  keep_best: int
  export: str
  num_reference: int

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    checks.one_of(("jit", "pmap"), parallel=self.parallel)
    checks.one_of(("last", "best"), export=self.export)
    if self.num_reference < 1:
      raise ValueError(f"num_reference must be >= 1, got {self.num_reference}")
    if self.export == "best" and self.keep_best < 1:
      raise ValueError(
        f"export='best' needs keep_best >= 1, got {self.keep_best}"
      )


class Stage(NamedTuple):
  """What the loop, the compile stage, golden tests and benchmarks all call.

  Attributes:
    step: jitted `(state, batch, key) -> (state, metrics)`; donates the state.
    state: abstract TrainState with shardings.
    batch: abstract batch of the largest bucket with shardings.
    init: `key -> state`, laid out as `state` says.
    network: the decoder's description.
    traces: how often the step was traced.
    passes: what a step computes, for counting FLOPs.
  """

  step: Callable[..., Any]
  state: contract.TrainState
  batch: dict[str, jax.ShapeDtypeStruct]
  init: Callable[[jax.Array], contract.TrainState]
  network: DecoderConfig
  traces: loop.TraceCounter
  passes: str = "forward_backward"

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


def assemble(
  objective: contract.Objective,
  optimizer: optax.GradientTransformation,
  model: heads.Model,
  network: DecoderConfig,
  config: backbone.BackboneConfig,
  shapes: Mapping[str, batches.ArraySpec],
  mesh: jax.sharding.Mesh,
  *,
  rules: tuple[tuple[str, str | None], ...],
  accumulation: int,
  parallel: str = "jit",
) -> Stage:
  """A stage out of what it optimises, how, and over which devices.

  Args:
    objective: the two phases of a batch's loss.
    optimizer: an optax chain.
    model: the network as pure functions.
    network: its description.
    config: where its parameters come from.
    shapes: of the largest batch.
    mesh: devices, real or abstract.
    rules: overrides of the logical table.
    accumulation: micro-batches per step.
    parallel: "jit" (sharded) or "pmap" (data parallel).

  Returns:
    The stage.
  """
  pmap = parallel == "pmap"
  update = loop.TraceCounter(
    contract.make_update(
      objective,
      optimizer,
      accumulation=accumulation,
      axis_name="data" if pmap else None,
    )
  )
  params = backbone.abstract_params(model)
  shardings = contract.like_params(
    optimizer,
    params,
    meshes.parameter_shardings(model.axes, params, mesh, rules),
    meshes.replicated(mesh),
    objective.carry,
  )
  start = lambda params: contract.init_state(params, optimizer, objective.carry)

  def init(key: jax.Array) -> contract.TrainState:
    params = backbone.initial_params(
      config, network, model, key, shardings.params
    )
    return jax.jit(start, out_shardings=shardings)(params)

  return Stage(
    step=(
      meshes.data_parallel(update, mesh)
      if pmap
      else meshes.sharded(update, shardings, mesh, rules)
    ),
    state=abstract.with_shardings(jax.eval_shape(start, params), shardings),
    batch=abstract.batch_shapes(shapes, mesh),
    init=init,
    network=network,
    traces=update,
  )


def every(step: int, period: int | None) -> bool:
  """Whether a period ends at this step; None never does."""
  return period is not None and step % period == 0
