"""Argument checks at trace time: what was got and what is allowed."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np


def floating(**arrays: jax.Array) -> list[jax.Array]:
  """The arrays in one float dtype of at least 32 bits, in the order given.

  bfloat16 and float16 are raised to float32 and float64 stays, so no loss is
  ever computed in a narrow type.

  Args:
    **arrays: named arrays, floating point, [...].

  Returns:
    The arrays in their common dtype, [...] each.

  Raises:
    TypeError: an array is not floating point; a reward held in integers would
      be truncated silently.
  """
  for name, array in arrays.items():
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
      raise TypeError(
        f"{name} must be floating point, got {jnp.result_type(array)}"
      )
  # By hand: strict promotion refuses the mixture that is resolved here.
  wide = any(jnp.result_type(a) == jnp.float64 for a in arrays.values())
  dtype = jnp.float64 if wide else jnp.float32
  return [jnp.asarray(array, dtype) for array in arrays.values()]


def boolean(**arrays: jax.Array | None) -> None:
  """Raises TypeError unless every array that is given is bool, [...]."""
  for name, array in arrays.items():
    if array is not None and jnp.result_type(array) != jnp.bool_:
      raise TypeError(
        f"{name} must be bool (True = counts), got {jnp.result_type(array)}"
      )


def integer(**arrays: jax.Array) -> None:
  """Raises TypeError unless every array holds integers, [...]."""
  for name, array in arrays.items():
    if not jnp.issubdtype(jnp.result_type(array), jnp.integer):
      raise TypeError(f"{name} must be integer, got {jnp.result_type(array)}")


def fraction(**values: jax.Array | float) -> None:
  """Raises ValueError for a known value outside [0, 1], [...].

  What is traced, as under `jit`, is not known yet and passes, as does what lies
  on other hosts, and a NaN, which the result shows; rounding may miss the ends
  by 1e-6.
  """
  for name, value in values.items():
    if isinstance(value, jax.core.Tracer):
      continue
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
      continue
    known_values = np.asarray(value)
    out = known_values[(known_values < -1e-6) | (known_values > 1 + 1e-6)]
    if out.size:
      raise ValueError(f"{name} must be in [0, 1], got {out.flat[0]}")


def same_shape(**arrays: jax.Array | None) -> None:
  """Raises ValueError unless all arrays that are given share one shape."""
  given = {k: jnp.shape(v) for k, v in arrays.items() if v is not None}
  if len(set(given.values())) > 1:
    got = ", ".join(f"{name} {shape}" for name, shape in given.items())
    raise ValueError(f"shapes must be equal, got {got}")


def rank(number: int, **arrays: jax.Array) -> None:
  """Raises ValueError unless every array has `number` axes."""
  for name, array in arrays.items():
    if jnp.ndim(array) != number:
      raise ValueError(
        f"{name} must have {number} axes, got shape {jnp.shape(array)}"
      )


def at_least(least: float, **numbers: float | None) -> None:
  """Raises ValueError unless every number is >= `least`; None passes."""
  for name, number in numbers.items():
    if number is not None and not number >= least:
      raise ValueError(f"{name} must be >= {least}, got {number}")


def above(bound: float, **numbers: float | None) -> None:
  """Raises ValueError unless every number is > `bound`; None passes."""
  for name, number in numbers.items():
    if number is not None and not number > bound:
      raise ValueError(f"{name} must be > {bound}, got {number}")


def within(least: float, most: float, **numbers: float | None) -> None:
  """Raises ValueError unless every number is in a range; None passes."""
  for name, number in numbers.items():
    if number is not None and not least <= number <= most:
      raise ValueError(f"{name} must be in [{least:g}, {most:g}], got {number}")


def one_of(allowed: Collection[str], **choices: str) -> None:
  """Raises ValueError unless every choice is one of the allowed words."""
  for name, choice in choices.items():
    if choice not in allowed:
      raise ValueError(
        f"{name} must be one of {', '.join(sorted(allowed))}, got {choice!r}"
      )


def known(**sizes: int | None) -> int:
  """The one size given by name; ValueError for None.

  A size of None is counted in the training data before anything is built.
  """
  ((name, size),) = sizes.items()
  if size is None:
    raise ValueError(
      f"{name} is counted in the training data, which is not read here: set it "
      "to a number"
    )
  return size


def counted(
  where: jax.Array | None, **arrays: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
  """Arrays of one shape with zeros under the mask, and the mask itself.

  The input is cleaned and not the result, because the derivative of a masked
  NaN is 0 · NaN.

  Args:
    where: bool [...], True counts, all by default.
    **arrays: named arrays, floating point, [...].

  Returns:
    The arrays in their common float dtype, in the order given, and the mask,
    [...] each.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: the shapes differ.
  """
  boolean(where=where)
  same_shape(**arrays, where=where)
  values = floating(**arrays)
  if where is None:
    return values, jnp.ones(values[0].shape, jnp.bool_)
  return [jnp.where(where, x, 0.0) for x in values], where
