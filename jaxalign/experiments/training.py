"""What all stages that train share: the `train` section and a built step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxalign.algorithms import contract
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks
from jaxalign.runtime import loop


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How long, how often, on how much and what is kept.

  Attributes:
    num_steps: optimiser steps.
    batch_size: pairs per step over all devices.
    accumulation: micro-batches per step; changes memory, not results.
    parallel: "jit" (sharded) or "pmap" (data parallel).
    eval_every: steps between evaluations, None for the end only.
    checkpoint_every: steps between checkpoints; the last step always saves.
    keep_last: most recent checkpoints kept.
    keep_best: checkpoints of lowest `eval/nll` kept as well.
    export: checkpoint that becomes `model/`: "last" or "best".
    max_bad_steps: steps in a row without finite gradient that stop the run.
    num_reference: training pairs whose rewards calibrate the exported model.
  """

  num_steps: int
  batch_size: int
  accumulation: int
  parallel: str
  eval_every: int | None
  checkpoint_every: int
  keep_last: int
  keep_best: int
  export: str
  max_bad_steps: int
  num_reference: int

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(("jit", "pmap"), parallel=self.parallel)
    checks.one_of(("last", "best"), export=self.export)
    for name in (
      "num_steps",
      "batch_size",
      "accumulation",
      "checkpoint_every",
      "num_reference",
    ):
      if self.__dict__[name] < 1:
        raise ValueError(f"{name} must be >= 1, got {self.__dict__[name]}")
    if self.eval_every is not None and self.eval_every < 1:
      raise ValueError(
        f"eval_every must be >= 1 or None, got {self.eval_every}"
      )
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


def every(step: int, period: int | None) -> bool:
  """Whether a period ends at this step; None never does."""
  return period is not None and step % period == 0
