"""What a decoder is built of: norms, projections, one block, embeddings."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import attention
from jaxalign.models.config import DecoderConfig

ACTIVATIONS = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
}
EMBED_STD = 0.02


def wide_dtype(config: DecoderConfig) -> jnp.dtype:
  """Type of norms, softmax and heads: the compute type, at least float32."""
  return attention.at_least_float32(jnp.dtype(config.dtype))


def row_dropout(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
  """Zeroes entries with probability `rate` and rescales the rest.

  Every row draws from its own key, so its mask depends neither on the other
  rows nor on its place in the batch, and padding on the right leaves the mask
  of the earlier tokens as it was.

  Args:
    x: [B, T, D].
    keys: typed keys [B], or None for no dropout.
    rate: in [0, 1).

  Returns:
    [B, T, D].
  """
  if keys is None or rate == 0.0:
    return x
  draw = lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:])
  return jnp.where(jax.vmap(draw)(keys), x / (1.0 - rate), 0.0)


class Norm(nn.Module):
  """LayerNorm or RMSNorm over the last axis, in at least float32."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises x [..., D]; the result is in the wide dtype."""
    config = self.config
    wide = wide_dtype(config)
    parameter = lambda name, init: self.param(
      name,
      nn.with_logical_partitioning(init, ("norm",)),
      x.shape[-1:],
      jnp.dtype(config.param_dtype),
    ).astype(wide)
    lift = lambda p: p.reshape((1,) * (x.ndim - 1) + p.shape)
    x = x.astype(wide)
    if config.norm == "layer":
      x = x - jnp.mean(x, axis=-1, keepdims=True)
    power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(power + config.norm_eps)
    x = x * lift(parameter("scale", nn.initializers.ones))
    if config.norm == "layer":
      x = x + lift(parameter("bias", nn.initializers.zeros))
    return x


class Dense(nn.Module):
  """x @ kernel + bias from the compute dtype, kernel [in, out]."""

  config: DecoderConfig
  features: int
  axes: tuple[str, str]
  use_bias: bool
  scale: float = 1.0
  output_dtype: jnp.dtype | None = None  # None is the compute dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [..., in] to [..., out]."""
    dtype = jnp.dtype(self.config.dtype)
    param_dtype = jnp.dtype(self.config.param_dtype)
    init = nn.initializers.normal(self.scale * x.shape[-1] ** -0.5)
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(init, self.axes),
      (x.shape[-1], self.features),
      param_dtype,
    )
    y = jnp.dot(
      x.astype(dtype),
      kernel.astype(dtype),
      preferred_element_type=self.output_dtype,
    )
    if self.use_bias:
      bias = self.param(
        "bias",
        nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:]),
        (self.features,),
        param_dtype,
      )
      y = y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + bias.shape)
    return y


class Attention(nn.Module):
  """Self-attention with rotary positions where the config asks for them."""

  config: DecoderConfig

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    angles: tuple[jax.Array, jax.Array] | None,
  ) -> jax.Array:
    """Maps x [B, T, D] to [B, T, D]; mask [B, 1, T, T]."""
    config = self.config

    def heads(name: str, number: int, axis: str) -> jax.Array:
      y = Dense(
        config,
        number * config.head_dim,
        ("embed", axis),
        config.qkv_bias,
        name=name,
      )(x)
      y = y.reshape(*x.shape[:2], number, config.head_dim)
      return nn.with_logical_constraint(y, ("batch", None, axis, None))

    query = heads("query", config.num_heads, "heads")
    key = heads("key", config.num_kv_heads, "kv_heads")
    value = heads("value", config.num_kv_heads, "kv_heads")
    if angles is not None:
      query = attention.rotate(query, *angles)
      key = attention.rotate(key, *angles)
    mixed = attention.attend(query, key, value, mask)
    return Dense(
      config,
      config.embed_dim,
      ("heads", "embed"),
      config.out_bias,
      scale=(2 * config.num_layers) ** -0.5,
      name="out",
    )(mixed.reshape(*x.shape[:2], -1))


class Mlp(nn.Module):
  """The position-wise network, gated or plain."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, T, D] to [B, T, D]."""
    config = self.config
    wide = functools.partial(
      Dense, config, config.mlp_dim, ("embed", "mlp"), config.mlp_bias
    )
    activation = ACTIVATIONS[config.activation]
    hidden = wide(name="up")(x)
    if config.gated:
      hidden = activation(wide(name="gate")(x)) * hidden
    else:
      hidden = activation(hidden)
    hidden = nn.with_logical_constraint(hidden, ("batch", None, "mlp"))
    return Dense(
      config,
      config.embed_dim,
      ("mlp", "embed"),
      config.mlp_bias,
      scale=(2 * config.num_layers) ** -0.5,
      name="down",
    )(hidden)


class Block(nn.Module):
  """One pre-norm layer, in the (carry, input) form that a scan wants."""

  config: DecoderConfig

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    index: jax.Array,
    mask: jax.Array,
    angles: tuple[jax.Array, jax.Array] | None,
    dropout_keys: jax.Array | None,
  ) -> tuple[jax.Array, None]:
    """Adds both residual branches to x [B, T, D]."""
    config = self.config
    dtype = jnp.dtype(config.dtype)
    attention_keys = mlp_keys = None
    if dropout_keys is not None:
      fold = jax.vmap(jax.random.fold_in, (0, None))
      pairs = jax.vmap(jax.random.split)(fold(dropout_keys, index))
      attention_keys, mlp_keys = pairs[:, 0], pairs[:, 1]
    normed = Norm(config, name="attention_norm")(x).astype(dtype)
    branch = Attention(config, name="attention")(normed, mask, angles)
    x = x + row_dropout(branch, attention_keys, config.dropout)
    normed = Norm(config, name="mlp_norm")(x).astype(dtype)
    branch = Mlp(config, name="mlp")(normed)
    x = x + row_dropout(branch, mlp_keys, config.dropout)
    return nn.with_logical_constraint(x, ("batch", None, None)), None


class Embedding(nn.Module):
  """Token embeddings, plus learned positions where the config has them."""

  config: DecoderConfig

  def setup(self) -> None:
    """Declares the tables."""
    config = self.config
    table = lambda name, rows, axis: self.param(
      name,
      nn.with_logical_partitioning(
        nn.initializers.normal(EMBED_STD), (axis, "embed")
      ),
      (rows, config.embed_dim),
      jnp.dtype(config.param_dtype),
    )
    self.tokens = table("tokens", config.vocab_size, "vocab")
    if config.positions == "learned":
      self.positions = table("positions", config.max_positions, "positions")

  def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """Looks up tokens [B, T], giving [B, T, D] in the compute dtype."""
    # An id outside the vocabulary gives NaN, which no step survives, and not
    # some other token's row.
    look = functools.partial(jnp.take, axis=0, mode="fill")
    x = look(self.tokens, tokens)
    if self.config.positions == "learned":
      x = x + look(self.positions, positions)
    return x.astype(jnp.dtype(self.config.dtype))

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Scores hidden [B, T, D] against every token's embedding, [B, T, V]."""
    dtype = jnp.dtype(self.config.dtype)
    return jax.lax.dot_general(
      hidden.astype(dtype),
      self.tokens.astype(dtype),
      (((hidden.ndim - 1,), (1,)), ((), ())),
      preferred_element_type=wide_dtype(self.config),
    )
