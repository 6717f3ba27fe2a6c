"""Parameter mapping: which part of which checkpoint tensor holds each array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import config_map
from jaxalign.models.hf.family import Tensor


class Part(NamedTuple):
  """One of our parameters inside a checkpoint.

  Attributes:
    row: the row of the family table.
    shape: our shape, with the layer axis if there is one.
    start: where we begin on the tensor's output axis, or in each head's share.
    total: length of the tensor's output axis.
    turns: shares of the output axis, one per head where `row.by_head`, else 1.
  """

  row: Tensor
  shape: tuple[int, ...]
  start: int
  total: int
  turns: int

  @property
  def layered(self) -> bool:
    """Our leading axis is the layers, each a tensor of its own."""
    return "{layer}" in self.row.theirs

  @property
  def inner(self) -> tuple[int, ...]:
    """Our shape without the layer axis."""
    return self.shape[1:] if self.layered else self.shape

  @property
  def tensor_shape(self) -> tuple[int, ...]:
    """Shape of the tensor, or of each layer's."""
    shape = (*self.inner[:-1], self.total)
    return shape[::-1] if self.row.transpose else shape

  @property
  def columns(self) -> np.ndarray:
    """Where on the tensor's output axis each of our columns lies, int [out]."""
    width = self.inner[-1] // self.turns
    turns = np.arange(self.turns)[:, None] * (self.total // self.turns)
    return (turns + self.start + np.arange(width)[None]).reshape(-1)

  def names(self) -> list[str]:
    """Names of the tensors, in the order of the layers."""
    if not self.layered:
      return [self.row.theirs]
    return [self.row.theirs.format(layer=i) for i in range(self.shape[0])]


def abstract_params(config: DecoderConfig) -> heads.Params:
  """The parameter tree with shapes and dtypes in place of arrays.

  Args:
    config: of a reward model or a language model.

  Returns:
    Nested dict of `jax.ShapeDtypeStruct`.
  """
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
  init = heads.model_of(config).init
  return jax.eval_shape(init, jax.random.key(0), tokens, mask)


def flat(params: Any) -> dict[str, Any]:
  """Leaves by path, such as "layers/mlp/up/kernel".

  Args:
    params: nested dict.

  Returns:
    Path -> leaf, in the order of `jax.tree.leaves`.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return {"/".join(key.key for key in keys): leaf for keys, leaf in leaves}


def flat_axes(axes: Any) -> dict[str, tuple[str | None, ...]]:
  """Logical axes by path of the parameter, as `flat` has the leaves.

  Args:
    axes: `Model.axes`.

  Returns:
    Path -> names.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(
    axes, is_leaf=lambda x: isinstance(x, tuple)
  )
  return {"/".join(key.key for key in keys): names for keys, names in leaves}


def parts(config: DecoderConfig) -> dict[str, Part]:
  """Where each parameter of a config lies in a checkpoint of its family.

  Args:
    config: of a known family.

  Returns:
    Path -> Part, one for every parameter.

  Raises:
    ValueError: the family's table has no row for a parameter.
  """
  family = config_map.family_of(config)
  shapes = {k: leaf.shape for k, leaf in flat(abstract_params(config)).items()}
  found: dict[str, Part] = {}
  for row in family.tensors:
    if not all(path in shapes for path in row.ours):
      continue
    turns = config.num_heads if row.by_head else 1
    widths = [shapes[path][-1] for path in row.ours]
    for i, path in enumerate(row.ours):
      start = sum(widths[:i]) // turns
      found[path] = Part(row, shapes[path], start, sum(widths), turns)
  for path in shapes:
    if path not in found:
      raise ValueError(
        f"family {family.model_type} has no tensor for parameter {path}"
      )
  return found
