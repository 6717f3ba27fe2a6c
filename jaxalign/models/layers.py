"""Parameters of all layers in one array, or each layer by itself.

Training scans over the layers, so their parameters lie in one array; decoding
runs through them one by one, and a layer cut from the middle of an array would
be copied at every token. This file alone converts the one form to the other.
"""

from typing import Any

import jax
import jax.numpy as jnp

Params = Any  # a nested dict of arrays


def unstack_layers(params: Params) -> Params:
  """Parameters with `layers` as a tuple of trees, one per layer.

  It copies the layers once. Do it once per change of the parameters: what reads
  parameters layer by layer takes either form, and converts if it must.

  Args:
    params: of a model, [L, ...] under `layers`, or already by layer.

  Returns:
    The same tree with a tuple of L trees of [...] under `layers`.
  """
  layers = params["layers"]
  if isinstance(layers, tuple):
    return params
  number = jax.tree.leaves(layers)[0].shape[0]
  each = tuple(
    jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(number)
  )
  return {**params, "layers": each}


def stack_layers(params: Params) -> Params:
  """Parameters with the layers of each kind in one array, as `init` gives them.

  Args:
    params: as `unstack_layers` gives them.

  Returns:
    The same tree with [L, ...] under `layers`.
  """
  layers = params["layers"]
  if not isinstance(layers, tuple):
    return params
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
  return {**params, "layers": stacked}
