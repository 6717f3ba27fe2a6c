"""The `model` section of a config: a folder to start from, or a new decoder."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.models import heads, lora
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import config_map, peft, weights
from jaxalign.models.lora import LoraConfig
from jaxalign.runtime.io import filesystem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """A decoder from scratch.

  Attributes:
    family: "llama" (RMSNorm, rotary, SwiGLU), "gpt2" (LayerNorm, learned
      positions, GELU), "gpt_neox", "opt" or another family of `models.hf`,
      with its own activation, biases and rotation; decides how the weights are
      saved.
    num_layers: blocks.
    num_heads: query heads.
    num_kv_heads: key and value heads, a divisor of num_heads; None for as many.
    embed_dim: width; head size is embed_dim / num_heads.
    mlp_dim: inner width of the MLP.
    vocab_size: rows of the token embedding, at least the tokenizer's; None for
      as many. With it a step can be compiled at the size of a published model
      whose files are not at hand.
    tie_embeddings: a language model's head is the token embedding.
  """

  family: str = "llama"
  num_layers: int
  num_heads: int
  num_kv_heads: int | None = None
  embed_dim: int
  mlp_dim: int
  vocab_size: int | None = None
  tie_embeddings: bool = True

  def __post_init__(self) -> None:
    """Fills in the number of key and value heads."""
    if self.num_kv_heads is None:
      # config.json says what ran.
      object.__setattr__(self, "num_kv_heads", self.num_heads)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
  """Where the parameters come from and how they compute.

  Attributes:
    init_from: Hugging Face folder to start from, or None for `architecture`.
    architecture: a decoder from scratch; unused with `init_from`.
    dropout: rate on residual branches during training, [0, 1).
    dtype: compute type of matmuls, "float32" or "bfloat16"; parameters, norms
      and rewards stay float32.
    remat: "none", "dots" or "full": what the backward pass recomputes.
    unroll: layers per scan iteration, at most all of them.
    lora: adapters to train in place of the parameters, which stay as they are;
      None trains all of them.
    attention: "dense" (any device), "fused" (cuDNN on a GPU, in bfloat16) or
      "splash" (TPU), without which sequences of thousands of tokens do not fit.
  """

  init_from: str | None = None
  architecture: Architecture | None = None
  dropout: float = 0.0
  dtype: str = "float32"
  remat: str = "none"
  unroll: int = 1
  lora: LoraConfig | None = None
  attention: str = "dense"

  def __post_init__(self) -> None:
    """Raises ValueError without an origin; of two, the folder wins."""
    if self.init_from is None and self.architecture is None:
      raise ValueError(
        "init_from or architecture must be set, got neither: a folder in "
        "Hugging Face layout, or the sizes of a decoder from scratch"
      )
    if self.init_from is not None:
      # config.json says what ran, not what it would have been without.
      object.__setattr__(self, "architecture", None)


def decoder_config(
  config: BackboneConfig,
  tokenizer: Tokenizer,
  *,
  max_length: int,
  num_outputs: int | None,
) -> DecoderConfig:
  """The decoder's static description.

  Args:
    config: the `model` section.
    tokenizer: gives vocabulary and special ids.
    max_length: longest sequence it must take.
    num_outputs: width of the reward head, None for a language model.

  Returns:
    A hashable config.

  Raises:
    ValueError: the vocabulary or the folder's context is too small for the
      data.
  """
  run = {
    "dropout": config.dropout,
    "dtype": config.dtype,
    "remat": config.remat,
    "attention": config.attention,
    "num_outputs": num_outputs,
    "pad_id": (
      tokenizer.pad_id if tokenizer.unread_id is None else tokenizer.unread_id
    ),
    "bos_id": tokenizer.bos_id,
  }
  if config.init_from is not None:
    folder = filesystem.resolved(config.init_from, weights=False)
    loaded = weights.load_config(folder)
    tokenizer.check_embedded(loaded.vocab_size, config.init_from)
    if loaded.max_positions < max_length:
      raise ValueError(
        f"data.max_length {max_length} exceeds the {loaded.max_positions} "
        f"positions of {config.init_from}"
      )
    return dataclasses.replace(
      loaded,
      **run,
      eos_id=_eos_id((*tokenizer.ends, *loaded.eos_ids)),
      unroll=min(config.unroll, loaded.num_layers),
    )
  shape = config.architecture
  vocab_size = shape.vocab_size or tokenizer.vocab_size
  tokenizer.check_embedded(vocab_size, "the architecture")
  chosen = {
    "num_layers": shape.num_layers,
    "num_heads": shape.num_heads,
    "num_kv_heads": shape.num_kv_heads,
    "embed_dim": shape.embed_dim,
    "mlp_dim": shape.mlp_dim,
    "vocab_size": vocab_size,
    "max_positions": max_length,
    "tie_embeddings": shape.tie_embeddings,
    "norm_eps": 1e-5,
    "eos_id": _eos_id(tokenizer.ends),
    "unroll": min(config.unroll, shape.num_layers),
  }
  defaults = config_map.family_defaults(shape.family)
  return config_map.scratch_config(shape.family, **defaults | chosen | run)


def _eos_id(ends: tuple[int, ...]) -> int | tuple[int, ...] | None:
  """The ends of an answer, each once, as config.json has them."""
  found = tuple(dict.fromkeys(ends))
  if len(found) > 1:
    return found
  return found[0] if found else None


def abstract_params(model: heads.Model) -> Any:
  """Shapes and dtypes of a model's parameters, without making any."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(
    model.init,
    key,
    jax.ShapeDtypeStruct((1, 1), jnp.int32),
    jax.ShapeDtypeStruct((1, 1), jnp.bool_),
  )


def initial_params(
  config: BackboneConfig,
  network: DecoderConfig,
  model: heads.Model,
  key: jax.Array,
  shardings: Any,
) -> Any:
  """Parameters before the first step: read where there is a folder.

  Args:
    config: the `model` section.
    network: from `decoder_config`.
    model: of that network.
    key: typed key of everything that is drawn.
    shardings: tree of params with a sharding per array.

  Returns:
    Tree of arrays laid out as `shardings`.
  """
  if config.init_from is not None:
    folder = filesystem.resolved(config.init_from)
    return weights.load_params(folder, network, key=key, shardings=shardings)
  token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), jnp.bool_)
  init = jax.jit(
    lambda key: model.init(key, token, mask), out_shardings=shardings
  )
  return init(key)


class Trained(NamedTuple):
  """What training moves, and the network that follows from it.

  Attributes:
    axes: logical axes of what is trained, as `Model.axes` has them.
    params: abstract tree of what is trained.
    whole: `(params, frozen) -> parameters of the network`.
    start: `tree of one copy -> params` before the first step.
    origin: abstract tree of one copy.
  """

  axes: Any
  params: Any
  whole: Callable[[Any, Any], Any]
  start: Callable[[Any], Any]
  origin: Any


def trained(
  config: BackboneConfig,
  network: DecoderConfig,
  model: heads.Model,
  copies: int | None = None,
) -> Trained:
  """All parameters of the network, or its adapters alone.

  Args:
    config: the `model` section.
    network: the decoder's description.
    model: of that network.
    copies: K trained side by side, which begin alike; None for one without an
      axis of copies. With adapters they share what is adapted.

  Returns:
    What is trained; with copies all arrays are [K, ...].
  """
  low_rank = config.lora
  if low_rank is None:
    axes, origin = model.axes, abstract_params(model)
    whole: Callable[[Any, Any], Any] = lambda params, _: params
  else:
    axes = lora.adapter_axes(network, low_rank)
    origin = jax.eval_shape(
      lambda: lora.init_adapters(jax.random.key(0), network, low_rank)
    )
    whole = lambda adapters, base: lora.merge(base, adapters, network, low_rank)
  if copies is None:
    return Trained(axes, origin, whole, lambda tree: tree, origin)
  if low_rank is not None:
    whole = jax.vmap(whole, (0, None))

  def start(tree: Any) -> Any:
    return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf[None], (copies, *leaf.shape)), tree
    )

  return Trained(
    copied_axes(axes), jax.eval_shape(start, origin), whole, start, origin
  )


def copied_axes(axes: Any) -> Any:
  """Logical axes of copies side by side, which lie on no mesh axis."""
  return jax.tree.map(
    # As the axis of stacked layers, it makes no vector a matrix.
    lambda names: ("layers", *names),
    axes,
    is_leaf=lambda node: isinstance(node, tuple),
  )


def initial_adapters(
  key: jax.Array, network: DecoderConfig, config: BackboneConfig
) -> lora.Adapters:
  """Adapters that change nothing yet."""
  return lora.init_adapters(key, network, config.lora)


def save_adapters(
  path: epath.PathLike,
  config: BackboneConfig,
  network: DecoderConfig,
  adapters: lora.Adapters,
  base: Any,
) -> None:
  """Writes trained adapters as a PEFT folder, for `PeftModel` to load.

  Args:
    path: the folder.
    config: the `model` section, with `lora` set.
    network: the decoder's description.
    adapters: what was trained, on the host.
    base: the parameters they adapt, on the host.
  """
  origin = config.init_from or ""
  with filesystem.filled(path) as folder:
    peft.save_adapters(
      folder, adapters, base, network, config.lora, base=origin
    )
