"""MetaRM loss: a gradient taken where rewards of fresh responses spread."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import checks
from jaxalign.ops.masked import AxisName

# A tree of arrays; JAX has no type for it that a checker could hold to.
Tree = Any


def reward_spread(rewards: jax.Array) -> jax.Array:
  """MetaRM's J: how much the rewards of responses to one prompt differ.

    J = (2/k²) Σ_{i<j} σ(|r_i − r_j|),   in [(k−1)/(2k), (k−1)/k)

  Args:
    rewards: rewards of k responses to a prompt, float [..., k].

  Returns:
    J per prompt, [...], an objective to ascend; 0 for a single response. At a
    tie the gradient is 0, so responses of equal reward stay equal.

  Raises:
    TypeError: rewards are not floating point.
    ValueError: rewards have no responses.

  References:
    Wang et al., "Secrets of RLHF in large language models part II", 2024,
    equation 11.
  """
  if jnp.ndim(rewards) < 1 or jnp.shape(rewards)[-1] < 1:
    raise ValueError(
      f"rewards must be [..., k] with a response, got {jnp.shape(rewards)}"
    )
  (rewards,) = checks.floating(rewards=rewards)
  size = rewards.shape[-1]
  first, second = np.triu_indices(size, 1)
  gap = rewards[..., first] - rewards[..., second]
  # Not abs, whose slope at 0 is 1: it would part a tie by index.
  spread = jax.nn.sigmoid(gap * jnp.sign(gap))
  return jnp.sum(spread, axis=-1) * (2 / size**2)


def lookahead_gradient(
  loss_fn: Callable[[Tree], jax.Array],
  ascent_fn: Callable[[Tree], jax.Array],
  params: Tree,
  *,
  step_size: jax.Array | float,
  second_order: bool = False,
  precondition: Callable[[Tree], Tree] | None = None,
  axis_name: AxisName = None,
) -> tuple[jax.Array, Tree]:
  """Loss and gradient at a point one ascent step away.

    g  = ∇ ascent(θ),   θ' = θ + η · precondition(g)
    first order:   (loss(θ'), ∇_θ' loss(θ'))
    second order:  (loss(θ'), ∇_θ  loss(θ'(θ)))

  The gradient is meant to be applied at θ. First order is the algorithm of
  the paper; second order also differentiates through the step.

  Args:
    loss_fn: tree -> scalar to descend, on the rows at hand.
    ascent_fn: tree -> scalar to ascend, on the rows at hand, such as a mean
      of `reward_spread`.
    params: θ, a tree of float arrays; the same on all devices.
    step_size: η. A Python 0 takes no step at all, so that the result is the
      plain one bit for bit.
    second_order: whether θ' is differentiated through.
    precondition: maps the ascent gradient to the direction of the step, a
      pure function such as `unit_precondition` or a partial of
      `adam_precondition`.
    axis_name: mapped axes whose devices each hold a part of the rows. Loss
      and both gradients are then means over them, and are the same on all.

  Returns:
    The loss, a scalar, and a tree like `params`. With `axis_name` both are
    already reduced; a further pmean changes nothing.

  References:
    Wang et al., 2024, algorithm 1.
  """

  def reduced(value: Tree) -> Tree:
    return value if axis_name is None else jax.lax.pmean(value, axis_name)

  def ahead(theta: Tree) -> Tree:
    if isinstance(step_size, (int, float)) and step_size == 0:
      return theta
    # A mean inside and a mean outside: under shard_map the first makes the
    # gradient that of the mean and the second does nothing, under pmap the
    # first leaves a device its own gradient and the second takes the mean.
    direction = reduced(jax.grad(lambda x: reduced(ascent_fn(x)))(theta))
    if precondition is not None:
      direction = precondition(direction)
    return jax.tree.map(
      lambda x, d: x + (step_size * d).astype(x.dtype), theta, direction
    )

  if second_order:
    loss, gradient = jax.value_and_grad(
      lambda theta: reduced(loss_fn(ahead(theta)))
    )(params)
  else:
    point = jax.lax.stop_gradient(ahead(params))
    loss, gradient = jax.value_and_grad(lambda x: reduced(loss_fn(x)))(point)
  return loss, reduced(gradient)


def unit_precondition(gradient: Tree) -> Tree:
  """The gradient over its norm, so that η is the length of the step.

    d = g / ‖g‖₂ over the whole tree

  Args:
    gradient: tree of float arrays, [...] each.

  Returns:
    The same tree with norm 1, [...] each; a zero gradient stays zero.
  """
  leaves = checks.floating(
    **{f"gradient leaf {i}": x for i, x in enumerate(jax.tree.leaves(gradient))}
  )
  # The largest entry first: squares of what is left can neither overflow nor
  # vanish, whatever the scale of the loss.
  peaks = [jnp.max(jnp.abs(x), initial=0.0) for x in leaves]
  largest = jax.lax.stop_gradient(jnp.max(jnp.stack(peaks)))
  largest = jnp.where(largest > 0, largest, 1.0)
  square = jnp.sum(
    jnp.stack([jnp.sum(jnp.square(x / largest)) for x in leaves])
  )
  moving = square > 0
  scale = jnp.where(moving, jax.lax.rsqrt(jnp.where(moving, square, 1.0)), 0.0)
  return jax.tree.map(
    lambda x: (x / largest.astype(x.dtype)) * scale.astype(x.dtype), gradient
  )


def adam_precondition(
  gradient: Tree,
  *,
  second_moment: Tree,
  count: jax.Array | int,
  decay: float = 0.999,
  epsilon: float = 1e-8,
) -> Tree:
  """The direction Adam without momentum would take, as a pure function.

    v' = decay · v + (1 − decay) g²
    d  = g / (sqrt(v' / (1 − decay^(count + 1))) + ε)

  Args:
    gradient: g, tree of float arrays, [...] each.
    second_moment: v, a tree like it, such as the outer optimiser's; it is
      read and not kept.
    count: steps that v already holds, scalar.
    decay: Python float in [0, 1).
    epsilon: ε > 0, Python float.

  Returns:
    A tree like `gradient`, [...] each; an entry that never moved gives 0.

  Raises:
    ValueError: decay or epsilon is out of range.

  References:
    Kingma & Ba, "Adam: a method for stochastic optimization", 2015,
    algorithm 1 with β₁ = 0.
  """
  if not 0.0 <= decay < 1.0:
    raise ValueError(f"decay must be in [0, 1), got {decay}")
  if not epsilon > 0.0:
    raise ValueError(f"epsilon must be positive, got {epsilon}")

  def direction(g: jax.Array, v: jax.Array) -> jax.Array:
    steps = jnp.asarray(count, g.dtype) + 1
    # expm1: 1 − decay^steps in float32 would be wrong in the fifth digit.
    mass = -jnp.expm1(steps * math.log(decay)) if decay > 0 else 1.0
    moment = (decay * v.astype(g.dtype) + (1 - decay) * jnp.square(g)) / mass
    seen = moment > 0  # the root's slope at 0 is infinite
    root = jnp.where(seen, jnp.sqrt(jnp.where(seen, moment, 1.0)), 0.0)
    return g / (root + epsilon)

  return jax.tree.map(direction, gradient, second_moment)
