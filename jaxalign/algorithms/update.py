"""Two-phase update: statistics over the whole batch first, then the loss.

Everything that couples examples (a mean's denominator, a source's gradient, a
group's utility) is a *statistic*: summed over micro-batches and devices before
any loss is taken. The loss of a micro-batch then reads the finished statistics
and its gradient is simply added up, so accumulation, device count and padding
cannot change a result. `micro_batches`, `sum_over` and `map_over` split a batch
that memory does not hold at once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxalign.algorithms import train_state
from jaxalign.algorithms.train_state import TrainState

Batch = Mapping[str, jax.Array]


def micro_batches(batch: Batch, number: int) -> Batch:
  """Deals the rows of a batch out to `number` micro-batches, [A, B / A, ...].

  Rows are dealt in turn, so each device keeps its own rows and a sharded batch
  is cut without communication.

  Args:
    batch: arrays [B, ...].
    number: micro-batches A.

  Returns:
    Arrays [A, B / A, ...].

  Raises:
    ValueError: B is not divisible by A.
  """

  def deal(array: jax.Array) -> jax.Array:
    size = array.shape[0]
    if size % number:
      raise ValueError(
        f"accumulation must divide the rows of a device's batch, got "
        f"{size} rows and accumulation {number}"
      )
    return jnp.swapaxes(
      array.reshape(size // number, number, *array.shape[1:]), 0, 1
    )

  return {name: deal(array) for name, array in batch.items()}


def sum_over(function: Callable[[Batch], Any], batches: Batch) -> Any:
  """Sum of a function over micro-batches, one at a time.

  Args:
    function: of one micro-batch, to a pytree of arrays.
    batches: arrays [A, B / A, ...].

  Returns:
    The pytree, summed over A.
  """
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches
  )
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(function, one),
  )
  add = lambda total, batch: (
    jax.tree.map(jnp.add, total, function(batch)),
    None,
  )
  return jax.lax.scan(add, zeros, batches)[0]


def map_over(
  function: Callable[[Batch], Any], batch: Batch, number: int
) -> Any:
  """A function of rows, on `number` micro-batches one at a time.

  Args:
    function: of a batch [B / A, ...], to a pytree of arrays [B / A, ...].
    batch: arrays [B, ...].
    number: micro-batches A.

  Returns:
    The pytree of the whole batch, [B, ...], in the order of its rows.
  """
  if number == 1:
    return function(batch)
  parts = jax.lax.map(function, micro_batches(batch, number))
  return jax.tree.map(
    lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), parts
  )


Params = train_state.Params
Outputs = Any  # of a forward pass
Statistics = Any  # a pytree of sums
Scalars = dict[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (total, count)


def _no_coupling(sums: Statistics, carry: Any) -> tuple[Any, Any, Scalars]:
  """The statistics as they are, nothing carried, nothing reported."""
  return sums, carry, {}


def same_batch(batch: Batch, carry: Any) -> Batch:
  """The batch as it is: no row reads the carry."""
  del carry
  return batch


class Objective(NamedTuple):
  """What an algorithm optimises, in two phases over one forward pass.

  With one micro-batch the two phases share the forward pass; with several it
  runs once for each, the price of coupling more rows than memory holds.

  Attributes:
    forward: `(params, micro_batch) -> outputs`, whatever both phases read.
    statistics: `(outputs, micro_batch) -> sums`, a pytree added over
      micro-batches and devices. No gradient flows through it.
    loss: `(outputs, micro_batch, context) -> (loss, metrics)`, where the
      scalar losses of all micro-batches add up to the loss of the batch and
      metrics are (total, count) pairs that add up as well.
    context: `(statistics, carry) -> (context, carry, scalars)`, once per step:
      what the loss reads of the whole batch, what the next step is given, and
      what is reported of both.
    carry: what the first step is given, a pytree of arrays.
    prepare: `(batch, carry) -> batch`, before both phases: what each row reads
      of the carry, as one more array [B, ...] of the batch.
  """

  forward: Callable[[Params, Batch], Outputs]
  statistics: Callable[[Outputs, Batch], Statistics]
  loss: Callable[[Outputs, Batch, Any], tuple[jax.Array, Metrics]]
  context: Callable[[Statistics, Any], tuple[Any, Any, Scalars]] = _no_coupling
  carry: Any = ()
  prepare: Callable[[Batch, Any], Batch] = same_batch


Update = Callable[
  [TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]
]


def _as_they_are(params: Params, frozen: Any) -> Params:
  """All parameters are trained."""
  del frozen
  return params


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
  """One key per row, [B], from the row's position in the global batch.

  A row's dropout therefore depends neither on the device or micro-batch it
  lands in nor on its batch mates.

  Args:
    key: typed key of the step.
    rows: global row positions, int32 [B].

  Returns:
    Typed keys [B].
  """
  keys: jax.Array = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
  return keys


class BatchGradient(NamedTuple):
  """Gradient and metrics of one batch, summed over micro-batches and devices.

  Attributes:
    gradient: of the loss, like the parameters.
    loss: [].
    metrics: name -> (total, count).
    carry: for the next step.
    scalars: what the objective's context reports.
  """

  gradient: Any
  loss: jax.Array
  metrics: Metrics
  carry: Any
  scalars: Scalars


Gradient = Callable[[Params, Batch, Any], BatchGradient]
Take = Callable[
  [Callable[[Objective], Gradient], Objective, TrainState, Batch], BatchGradient
]


def make_gradient(
  objective: Objective,
  *,
  accumulation: int = 1,
  axis_name: str | None = None,
) -> Gradient:
  """Gradient of the whole batch's loss, independent of how it is split.

  Args:
    objective: the two phases.
    accumulation: micro-batches per step.
    axis_name: the mapped axis inside `jax.pmap`; None under `jit`, where arrays
      are global.

  Returns:
    `(params, batch, carry) -> BatchGradient`.
  """

  def everywhere(tree: Any) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

  def finish(sums: Statistics, carry: Any) -> tuple[Any, Any, Scalars]:
    sums = jax.lax.stop_gradient(everywhere(sums))
    return jax.lax.stop_gradient(objective.context(sums, carry))

  # No collective carries a gradient, so a device's gradient is its share of
  # the sum: psum, not pmean, and never the gradient of a psum.
  def one_pass(params: Params, batch: Batch, carry: Any) -> BatchGradient:
    batch = objective.prepare(batch, carry)

    def loss(params: Params) -> tuple[jax.Array, Any]:
      outputs = objective.forward(params, batch)
      context, new_carry, scalars = finish(
        objective.statistics(outputs, batch), carry
      )
      value, metrics = objective.loss(outputs, batch, context)
      return value, (metrics, new_carry, scalars)

    (value, (metrics, carry, scalars)), grads = jax.value_and_grad(
      loss, has_aux=True
    )(params)
    grads, value, metrics = everywhere((grads, value, metrics))
    return BatchGradient(grads, value, metrics, carry, scalars)

  def two_passes(params: Params, batch: Batch, carry: Any) -> BatchGradient:
    batches = micro_batches(objective.prepare(batch, carry), accumulation)

    # Both phases drop out the same activations: their keys are used twice on
    # purpose, which a clone says.
    def clone() -> Batch:
      return {
        k: jax.random.clone(v) if k == "key" else v for k, v in batches.items()
      }

    context, carry, scalars = finish(
      sum_over(
        lambda micro: objective.statistics(
          objective.forward(params, micro), micro
        ),
        clone(),
      ),
      carry,
    )
    value_and_gradient = jax.value_and_grad(
      lambda params, micro: objective.loss(
        objective.forward(params, micro), micro, context
      ),
      has_aux=True,
    )
    (value, metrics), grads = sum_over(
      lambda micro: value_and_gradient(params, micro), clone()
    )
    grads, value, metrics = everywhere((grads, value, metrics))
    return BatchGradient(grads, value, metrics, carry, scalars)

  return one_pass if accumulation == 1 else two_passes


def at_the_parameters(
  gradient_of: Callable[[Objective], Gradient],
  objective: Objective,
  state: TrainState,
  batch: Batch,
) -> BatchGradient:
  """Gradient of the objective at the current parameters.

  Args:
    gradient_of: gives an objective's gradient in the layout of the update.
    objective: what the update descends.
    state: before the step.
    batch: of the step, with keys.

  Returns:
    What the optimiser is given.
  """
  return gradient_of(objective)(state.params, batch, state.carry)


def make_update(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  accumulation: int = 1,
  axis_name: str | None = None,
  whole: Callable[[Params, Any], Params] = _as_they_are,
  take: Take = at_the_parameters,
) -> Update:
  """One optimiser step on one batch, guarded against non-finite gradients.

  Args:
    objective: the two phases.
    optimizer: an optax chain.
    accumulation: micro-batches per step; the result does not depend on it.
    axis_name: the mapped axis inside `jax.pmap`, None under `jit`.
    whole: `(params, frozen) -> parameters of the network`, from what is trained
      and what is not.
    take: where and how a step's gradient is taken.

  Returns:
    `update(state, batch, key) -> (state, metrics)`, pure. `batch["row"]` holds
    global row positions; `batch["key"]` [B] is added for dropout. A step with a
    non-finite loss or gradient changes neither parameters, optimiser nor carry,
    but is counted in `bad_steps` and consumes its batch. Metrics are scalars.
  """

  def update(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    def gradient_of(objective: Objective) -> Gradient:
      forward = lambda params, micro_batch: objective.forward(
        whole(params, state.frozen), micro_batch
      )
      return make_gradient(
        objective._replace(forward=forward),
        accumulation=accumulation,
        axis_name=axis_name,
      )

    keys = row_keys(jax.random.fold_in(key, state.step), batch["row"])
    grads, loss, metrics, carry, scalars = take(
      gradient_of, objective, state, {**batch, "key": keys}
    )
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    unless_bad = lambda new, old: jnp.where(finite, new, old)
    state = TrainState(
      step=state.step + 1,
      params=jax.tree.map(unless_bad, params, state.params),
      opt_state=jax.tree.map(unless_bad, opt_state, state.opt_state),
      bad_steps=jnp.where(finite, 0, state.bad_steps + 1).astype(jnp.int32),
      carry=jax.tree.map(unless_bad, carry, state.carry),
      frozen=state.frozen,
    )
    scalars = scalars | {
      k: total / jnp.maximum(n, 1) for k, (total, n) in metrics.items()
    }
    scalars |= {
      "train/loss": loss,
      "train/gradient_norm": norm,
      "train/bad_steps": state.bad_steps,
    }
    return state, scalars

  return update
