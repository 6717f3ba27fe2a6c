"""Train state: what a resumed run needs beside its config, and its layout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = Any  # a nested dict of arrays


class TrainState(NamedTuple):
  """All that a resumed run needs beside its config.

  Attributes:
    step: number of batches consumed, int32 [].
    params: nested dict of arrays.
    opt_state: the state of the optax chain.
    bad_steps: consecutive steps not applied for want of a finite loss or
      gradient, int32 [].
    carry: what the objective hands from step to step, a pytree of arrays.
    frozen: what the network needs beside `params` and training leaves alone,
      such as the base of adapters; checkpoints do not hold it.
  """

  step: jax.Array
  params: Params
  opt_state: Any
  bad_steps: jax.Array
  carry: Any = ()
  frozen: Any = ()


def init_state(
  params: Params,
  optimizer: optax.GradientTransformation,
  carry: Any = (),
  frozen: Any = (),
) -> TrainState:
  """The state before the first step; `carry` is the objective's."""
  # Two zeros: the state is donated, and a buffer can be given away once.
  step, bad_steps = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
  carry = jax.tree.map(jnp.array, carry)  # copies, for the same reason
  opt_state = optimizer.init(params)
  return TrainState(step, params, opt_state, bad_steps, carry, frozen)


def like_params(
  optimizer: optax.GradientTransformation,
  params: Params,
  per_param: Any,
  otherwise: Any,
  carry: Any = (),
  frozen: Any = (),
) -> TrainState:
  """A TrainState that holds, for each leaf, what goes with its parameter.

  Moments and other parameter-shaped parts of the optimiser take their
  parameter's entry; counters take `otherwise`.

  Args:
    optimizer: an optax chain.
    params: tree of arrays or shapes.
    per_param: the same tree with an entry (e.g. a sharding) per parameter.
    otherwise: the entry of everything else.
    carry: the objective's, whose leaves all take `otherwise`.
    frozen: entries of what is not trained.

  Returns:
    A TrainState of entries.
  """
  opt_state = optax.tree.map_params(
    optimizer,
    lambda _, entry: entry,
    jax.eval_shape(optimizer.init, params),
    per_param,
    transform_non_params=lambda _: otherwise,
  )
  carry = jax.tree.map(lambda _: otherwise, carry)
  return TrainState(otherwise, per_param, opt_state, otherwise, carry, frozen)
