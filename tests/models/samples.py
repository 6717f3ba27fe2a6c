"""Two small decoders that between them use every option of a block."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from jaxalign import models
from jaxalign.models.hf import param_map

LLAMA = models.DecoderConfig(
  vocab_size=23,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  embed_dim=8,
  mlp_dim=12,
  max_positions=16,
)
GPT2 = dataclasses.replace(
  LLAMA,
  num_kv_heads=4,
  norm="layer",
  activation="gelu_tanh",
  gated=False,
  positions="learned",
  qkv_bias=True,
  out_bias=True,
  mlp_bias=True,
  tie_embeddings=True,
  family="gpt2",
)


REWARD = dataclasses.replace(LLAMA, num_outputs=2)
WIDE = dict(dtype="float64", param_dtype="float64")


def rows(batch=3, length=6):
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, LLAMA.vocab_size, (batch, length)).astype(np.int32)
  mask = np.ones(tokens.shape, bool)
  mask[0, -2:] = mask[1, :2] = False
  return tokens, mask


def start(config):
  """A model, and parameters of which none is at a special value."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    fan_in = leaf.shape[-2] if path[-1].key == "kernel" else 10
    centre = 1 if path[-1].key == "scale" else 0
    return jnp.asarray(
      centre + rng.normal(size=leaf.shape) * fan_in**-0.5, leaf.dtype
    )

  shapes = param_map.abstract_params(config)
  return models.model_of(config), jax.tree.map_with_path(draw, shapes)


def equations(jaxpr):
  """All equations, those of inner jaxprs included."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jaxprs_in_params(equation.params):
      yield from equations(inner)
