"""Transformer blocks: norms, projections, attention and MLP."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import attention, layer_kinds, rotary, splash_attention
from jaxalign.models.config import DecoderConfig

ACTIVATIONS = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
}


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


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
  """A vector [D] with as many axes as x [..., D]."""
  return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


# The backward pass of what follows starts again from the inputs. It costs no
# product, and the intermediate results, several times the size of the input,
# are neither written nor read back: on a CPU that traffic took longer than the
# products of the backward pass.
lean = functools.partial(jax.checkpoint, prevent_cse=False)


@functools.partial(lean, static_argnums=2)
def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """Divides x [..., D] by its root mean square, in the type of `scale`."""
  x = x.astype(scale.dtype)
  power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(power + eps) * along_last(scale, x)


@functools.partial(lean, static_argnums=3)
def layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> jax.Array:
  """Brings x [..., D] to mean 0 and variance 1, in the type of `scale`."""
  x = x.astype(scale.dtype)
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  x = x * jax.lax.rsqrt(power + eps)
  return x * along_last(scale, x) + along_last(bias, x)


class Norm(nn.Module):
  """LayerNorm or RMSNorm over the last axis, in at least float32."""

  config: DecoderConfig
  kind: str | None = None  # None is that of the config

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
    if config.zero_centred_norms:
      scale = 1.0 + parameter("scale", nn.initializers.zeros)
    else:
      scale = parameter("scale", nn.initializers.ones)
    if (config.norm if self.kind is None else self.kind) == "rms":
      return rms_norm(x, scale, config.norm_eps)
    bias = parameter("bias", nn.initializers.zeros)
    return layer_norm(x, scale, bias, config.norm_eps)


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
    """Maps x [N, in] to [N, out].

    Tokens of all rows share one axis: the weight gradient then contracts one
    axis, for which XLA needs no transposed copy of the activations.
    """
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
      y = y + along_last(bias.astype(y.dtype), y)
    return y


class Cache(NamedTuple):
  """Keys and values of one layer.

  Attributes:
    key: [B, K, S, head_dim], rotated.
    value: likewise.
  """

  key: jax.Array
  value: jax.Array

  @classmethod
  def of(cls, key: jax.Array, value: jax.Array) -> "Cache":
    """The cache of tokens with keys and values [B, T, K, head_dim]."""
    return cls(jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2))

  def written(
    self, key: jax.Array, value: jax.Array, slot: jax.Array
  ) -> "Cache":
    """The cache with keys and values [B, T, K, head_dim] from `slot` on."""
    put = lambda whole, part: nn.with_logical_constraint(
      jax.lax.dynamic_update_slice_in_dim(whole, part, slot, 2),
      ("batch", "kv_heads", None, None),
    )
    return Cache(*map(put, self, Cache.of(key, value)))


class Attention(nn.Module):
  """Self-attention with rotary positions where the config asks for them."""

  config: DecoderConfig

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    angles: tuple[jax.Array, jax.Array] | None,
    cache: Cache | None = None,
    slot: jax.Array | None = None,
    kind: jax.Array | None = None,
    used: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Maps x [B * T, D] to [B * T, D]; mask [B, 1, T, T or S].

    Under splash attention `mask` is the number of each token's text, int32
    [B, T], and 0 for padding, and `kind` the index of the layer's kind where
    there are several. With a cache of S slots the tokens are written to it at
    `slot` and read it, of which `used` slots are in use; None for all. The
    cache, or keys and values, come back too.
    """
    config = self.config
    shape = mask.shape if mask.ndim == 2 else (mask.shape[0], mask.shape[2])

    def heads(name: str, number: int, axis: str) -> jax.Array:
      y = Dense(
        config,
        number * config.head_dim,
        ("embed", axis),
        config.qkv_bias,
        name=name,
      )(x)
      if config.qk_norm_whole and name != "value":
        norm = Norm(config, "rms", name=f"{name}_norm")
        y = norm(y).astype(y.dtype)
      y = y.reshape(*shape, number, config.head_dim)
      return nn.with_logical_constraint(y, ("batch", None, axis, None))

    query = heads("query", config.num_heads, "heads")
    key = heads("key", config.num_kv_heads, "kv_heads")
    value = heads("value", config.num_kv_heads, "kv_heads")
    if config.qk_norm and not config.qk_norm_whole:
      narrow = query.dtype
      query = Norm(config, "rms", name="query_norm")(query).astype(narrow)
      key = Norm(config, "rms", name="key_norm")(key).astype(narrow)
    if angles is not None:
      query = rotary.rotate(query, *angles)
      key = rotary.rotate(key, *angles)
    width, cap = config.attention_width, config.attention_cap
    scale = None if width is None else width**-0.5
    if mask.ndim == 2:
      by_kind = [
        functools.partial(
          splash_attention.splash_attend,
          window=each.window,
          scale=scale,
          cap=cap,
        )
        for each in layer_kinds.kinds(config)
      ]
      given = (query, key, value, mask)
      if kind is None:
        mixed = by_kind[0](*given)
      else:
        mixed = jax.lax.switch(kind, by_kind, *given)
    elif cache is not None:
      cache = cache.written(key, value, slot)
      mixed = attention.cached_attend(
        query, *cache, mask, used, scale=scale, cap=cap
      )
    elif config.attention == "fused":
      mixed = attention.fused_attend(query, key, value, mask, scale=scale)
    else:
      mixed = attention.attend(query, key, value, mask, scale=scale, cap=cap)
    out = Dense(
      config,
      config.embed_dim,
      ("heads", "embed"),
      config.out_bias,
      scale=(2 * config.num_layers) ** -0.5,
      name="out",
    )(mixed.reshape(x.shape[0], -1))
    return out, Cache.of(key, value) if cache is None else cache


class Mlp(nn.Module):
  """The position-wise network, gated or plain."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [N, D] to [N, D]."""
    config = self.config
    wide = functools.partial(
      Dense, config, config.mlp_dim, ("embed", "mlp"), config.mlp_bias
    )
    activation = ACTIVATIONS[config.activation]
    hidden = wide(name="up")(x)
    if config.gated:
      gate = wide(name="gate")(x)
      hidden = lean(lambda g, h: activation(g) * h)(gate, hidden)
    else:
      hidden = lean(activation)(hidden)
    hidden = nn.with_logical_constraint(hidden, ("batch", "mlp"))
    return Dense(
      config,
      config.embed_dim,
      ("mlp", "embed"),
      config.mlp_bias,
      scale=(2 * config.num_layers) ** -0.5,
      name="down",
    )(hidden)


class Block(nn.Module):
  """One transformer layer, in the (carry, input) form of a scan."""

  config: DecoderConfig
  keep_cache: bool = False  # a scan would stack what it returns

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    index: jax.Array,
    mask: jax.Array,
    angles: tuple[jax.Array, jax.Array] | None,
    dropout_keys: jax.Array | None,
    cache: Cache | None = None,
    slot: jax.Array | None = None,
    used: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache | None]:
    """Adds both residual branches to x [B, T, D]; see `Attention`.

    With an `index` and several kinds of layers, `mask` and `angles` have a
    leading axis of kinds.
    """
    config = self.config
    dtype = jnp.dtype(config.dtype)
    kind = None
    if index is not None and len(layer_kinds.kinds(config)) > 1:
      kind = jnp.asarray(layer_kinds.kind_of_layers(config), jnp.int32)[index]
      pick = jax.lax.dynamic_index_in_dim
      mask, angles = jax.tree.map(
        lambda each: pick(each, kind, keepdims=False), (mask, angles)
      )
    attention_keys = mlp_keys = None
    if dropout_keys is not None:
      fold = jax.vmap(jax.random.fold_in, (0, None))
      pairs = jax.vmap(jax.random.split)(fold(dropout_keys, index))
      attention_keys, mlp_keys = pairs[:, 0], pairs[:, 1]
    # One array for all products that read it, or each would keep its own.
    flat = lambda normed: normed.astype(dtype).reshape(-1, config.embed_dim)

    def before(name: str, x: jax.Array) -> jax.Array:
      if config.norm_places == "after":
        return flat(x)
      return flat(Norm(config, name=name)(x))

    def behind(name: str, branch: jax.Array) -> jax.Array:
      if config.norm_places == "before":
        return branch
      return Norm(config, name=name)(branch).astype(dtype)

    attend = Attention(config, name="attention")
    branch, cache = attend(
      before("attention_norm", x), mask, angles, cache, slot, kind, used
    )
    branch = behind("attention_out_norm", branch.reshape(x.shape))
    after = x + row_dropout(branch, attention_keys, config.dropout)
    source = x if config.parallel_residual else after
    branch = Mlp(config, name="mlp")(before("mlp_norm", source))
    branch = behind("mlp_out_norm", branch.reshape(x.shape))
    x = after + row_dropout(branch, mlp_keys, config.dropout)
    x = nn.with_logical_constraint(x, ("batch", None, None))
    return x, cache if self.keep_cache else None
