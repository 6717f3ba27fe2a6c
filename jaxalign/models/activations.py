"""Activation sharding: logical axis names to places on a mesh."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax


def laid_out(
  function: Callable[..., Any],
  mesh: jax.sharding.Mesh,
  table: Mapping[str, Sequence[str]],
) -> Callable[..., Any]:
  """`function` with the activations of any model in it pinned to the mesh.

  Without this the compiler may keep parameters where they lie and send
  activations instead, which under fsdp costs far more.

  Args:
    function: calls `apply` of a model; to be traced under `jax.jit`.
    mesh: devices, real or abstract.
    table: mesh axes per logical axis.

  Returns:
    A function of the same arguments and values.
  """
  rules = tuple((name, tuple(axes) or None) for name, axes in table.items())

  @functools.wraps(function)
  def wrapped(*args: Any, **kwargs: Any) -> Any:
    with (
      nn.logical_axis_rules(rules),
      jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    ):
      return function(*args, **kwargs)

  return wrapped
