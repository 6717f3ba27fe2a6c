"""The `model` section of a config: a folder to start from, or a new decoder."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import published_shapes
from jaxalign.models import heads, lora
from jaxalign.models.config import (
  LOG_LENGTHS,
  POOLINGS,
  READING,
  DecoderConfig,
)
from jaxalign.models.hf import config_map, weights
from jaxalign.models.lora import LoraConfig
from jaxalign.ops import checks
from jaxalign.runtime.io import filesystem

TRAINABLE = ("head", "lora", "all")


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
    embed_dim: width.
    head_dim: width of one head, whatever the family's own; None for embed_dim /
      num_heads.
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
  head_dim: int | None = None
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
    init_from: Hugging Face folder to start from, the id of a model on the hub,
      OWNER/NAME or OWNER/NAME@REVISION, or None for `architecture`.
    architecture: a decoder from scratch; unused with `init_from`.
    dropout: rate on residual branches during training, [0, 1).
    dtype: compute type of matmuls, "float32" or "bfloat16"; parameters, norms
      and rewards stay float32.
    remat: "none", "dots" or "full": what the backward pass recomputes.
    unroll: layers per scan iteration, at most all of them.
    lora: adapters to train in place of the parameters, which stay as they are.
    log_length: a reward model learns a weight for the log of a response's
      tokens beside what it reads, and what is exported adds that term ("keep")
      or leaves it out ("remove"); None learns none.
    head_units: units of a hidden layer between what a reward model reads of a
      text and its rewards; None for the folder's own, else for a linear head.
    head_activation: "tanh" or "gelu" of these units; None for the folder's own,
      else "tanh".
    trainable: "head" (of a reward model, on features of `init_from`, each text
      being passed once), "lora" or "all"; None is "lora" with `lora`, else
      "all".
    features: folder of files of features, which runs may share; None for
      WORKDIR/features. With "head" alone.
    num_texts: unique texts, counted in the data where it is None. With "head"
      alone.
    attention: "dense" (any device), "fused" (cuDNN on a GPU, in bfloat16) or
      "splash" (TPU), without which sequences of thousands of tokens do not fit.
    layer: blocks of the folder that are taken, 1 to all of them, before the
      final norm; None takes all. The model that is written has no more.
    mixed_layers: layers in ascending order, counted as `layer`, that a reward
      model reads in place of one, mixed by weights that it learns; None for the
      folder's own mixture where `layer` is None too, else for one layer.
    pooling: where a reward model reads a text: its "last" token, the one
      "before_last", which is the last of the answer where the tokenizer ends a
      text, or the "mean" over the tokens of the response; None for the folder's
      own, else "last".
    shape: a published model, such as "llama-2-7b", whose sizes a decoder from
      scratch has, whatever `init_from` and `architecture` say: a step is
      compiled so where files are not at hand. See `published_shapes`.
  """

  init_from: str | None = None
  architecture: Architecture | None = None
  dropout: float = 0.0
  dtype: str = "float32"
  remat: str = "none"
  unroll: int = 1
  lora: LoraConfig | None = None
  attention: str = "dense"
  layer: int | None = None
  mixed_layers: tuple[int, ...] | None = None
  pooling: str | None = None
  log_length: str | None = None
  head_units: int | None = None
  head_activation: str | None = None
  trainable: str | None = None
  features: str | None = None
  num_texts: int | None = None
  shape: str | None = None

  def __post_init__(self) -> None:
    """Raises ValueError without an origin; of two, the folder wins."""
    if self.shape is not None:
      checks.one_of(published_shapes.SHAPES, shape=self.shape)
      sizes = published_shapes.SHAPES[self.shape]
      object.__setattr__(self, "architecture", Architecture(**sizes))
      object.__setattr__(self, "init_from", None)
    if self.init_from is None and self.architecture is None:
      raise ValueError(
        "init_from or architecture must be set, got neither: a folder in "
        "Hugging Face layout, or the sizes of a decoder from scratch"
      )
    if self.init_from is not None:
      # config.json says what ran, not what it would have been without.
      object.__setattr__(self, "architecture", None)
    adapts = "all" if self.lora is None else "lora"
    trainable = adapts if self.trainable is None else self.trainable
    checks.one_of(TRAINABLE, trainable=trainable)
    head = trainable == "head"
    if trainable != adapts and not (head and self.lora is None):
      raise ValueError(
        "trainable must be 'lora' where lora is set and not elsewhere, got "
        f"{self.trainable!r} with lora={self.lora}"
      )
    if head and self.init_from is None:
      raise ValueError(
        "trainable='head' needs init_from, the folder of the backbone whose "
        "features are read"
      )
    if self.log_length is not None:
      checks.one_of(LOG_LENGTHS, log_length=self.log_length)
      if self.lora is not None:
        raise ValueError(
          "log_length must be None with lora, whose adapters have no such "
          f"weight, got {self.log_length!r}; train a head or all parameters"
        )
    if self.pooling is not None:
      checks.one_of(POOLINGS, pooling=self.pooling)
    if self.layer is not None and (self.layer < 1 or self.init_from is None):
      raise ValueError(
        "layer must be >= 1 and counts the blocks of init_from, got "
        f"{self.layer}; an architecture has as many as it says"
      )
    alone = self.init_from is not None and self.layer is None
    if self.mixed_layers is not None and not alone:
      raise ValueError(
        "mixed_layers counts the blocks of init_from and goes with layer=None, "
        f"got {self.mixed_layers} with layer={self.layer}"
      )


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
  texts = config.features, config.num_texts
  if texts != (None, None) and config.trainable != "head":
    raise ValueError(
      "model.features and model.num_texts go with model.trainable='head' "
      f"alone, got {config.features!r} and {config.num_texts}"
    )
  if config.init_from is not None:
    folder = filesystem.resolved(config.init_from, weights=False)
    loaded = weights.load_config(folder)
    run |= _reading(config, num_outputs, loaded)
    layers = config.layer or (config.mixed_layers or (loaded.num_layers,))[-1]
    if layers > loaded.num_layers:
      raise ValueError(
        "model.layer and model.mixed_layers must be at most "
        f"{loaded.num_layers}, the layers of {config.init_from}, got {layers}"
      )
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
      num_layers=layers,
      unroll=min(config.unroll, layers),
    )
  run |= _reading(config, num_outputs)
  shape = config.architecture
  vocab_size = shape.vocab_size or tokenizer.vocab_size
  tokenizer.check_embedded(vocab_size, "the architecture")
  chosen = {
    "num_layers": shape.num_layers,
    "num_heads": shape.num_heads,
    "num_kv_heads": shape.num_kv_heads,
    "embed_dim": shape.embed_dim,
    "head_dim": shape.head_dim,
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


def _reading(
  config: BackboneConfig,
  num_outputs: int | None,
  loaded: DecoderConfig | None = None,
) -> dict[str, Any]:
  """How a text is read: as the config says, else as the folder does."""
  given = {k: v for k in READING if (v := getattr(config, k)) is not None}
  if num_outputs is None:
    if config.trainable == "head":
      given["trainable"] = "head"
    if given:
      raise ValueError(
        f"{', '.join(f'model.{name}' for name in given)}: of reward models "
        "alone, and this stage trains a language model: leave them out"
      )
    return READING
  own = READING
  if loaded is not None:
    own = {name: getattr(loaded, name) for name in READING}
  # The term of the length is trained also where it is not exported.
  keep = {"log_length": None if config.log_length is None else "keep"}
  found = own | given | keep
  if config.layer is not None:
    found["mixed_layers"] = None
  elif own["mixed_layers"] not in (None, found["mixed_layers"]):
    raise ValueError(
      f"model.mixed_layers must be {own['mixed_layers']}, whose weights are in "
      f"{config.init_from}, or None, got {found['mixed_layers']}"
    )
  for name in ("head_units", "mixed_layers"):
    if config.lora is not None and found[name] is not None:
      raise ValueError(
        f"model.{name} must be None with model.lora, whose adapters are of a "
        f"linear head on one layer, got {found[name]}; train head or all"
      )
  return found


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
    return weights.load_params(
      folder,
      network,
      key=key,
      shardings=shardings,
      cut=(config.layer, config.mixed_layers) != (None, None),
    )
  leaves, structure = jax.tree.flatten(shardings)
  return _initialiser(model.init, structure, tuple(leaves))(key)


@functools.lru_cache(maxsize=8)
def _initialiser(
  init: Callable[..., Any],
  structure: jax.tree_util.PyTreeDef,
  shardings: tuple[jax.sharding.Sharding, ...],
) -> Callable[[jax.Array], Any]:
  """`key -> parameters`, one program for a policy and its reference."""
  token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), jnp.bool_)
  return jax.jit(
    lambda key: init(key, token, mask),
    out_shardings=jax.tree.unflatten(structure, shardings),
  )


class Trained(NamedTuple):
  """What training moves, and the network that follows from it.

  Attributes:
    axes: logical axes of what is trained, as `Model.axes` has them.
    params: abstract tree of what is trained.
    frozen_axes: logical axes of what stays beside it, () for nothing.
    frozen: abstract tree of that.
    whole: `(params, frozen) -> parameters of the network`.
    start: `tree of one copy -> params` before the first step.
    origin: abstract tree of one copy.
  """

  axes: Any
  params: Any
  frozen_axes: Any
  frozen: Any
  whole: Callable[[Any, Any], Any]
  start: Callable[[Any], Any]
  origin: Any


def trained(
  config: BackboneConfig,
  network: DecoderConfig,
  model: heads.Model,
  copies: int | None = None,
) -> Trained:
  """All parameters of the network, its adapters alone, or its head alone.

  Args:
    config: the `model` section.
    network: the decoder's description.
    model: of that network.
    copies: K trained side by side, which begin alike; None for one without an
      axis of copies. With adapters they share what is adapted.

  Returns:
    What is trained; with copies all arrays are [K, ...].

  Raises:
    ValueError: a head alone, without the number of texts it is trained on.
  """
  params = abstract_params(model)
  frozen_axes: Any = ()
  frozen: Any = ()
  low_rank = config.lora
  if config.trainable == "head":
    axes, frozen_axes = _head_and_features(model.axes)
    origin, frozen = _head_and_features(params)
    if network.num_texts is None:
      raise ValueError(
        "model.trainable='head' trains on features of counted texts, so it is "
        "for train_reward and denoise alone; model.num_texts counts them"
      )
    whole: Callable[[Any, Any], Any] = lambda head, table: {**table, **head}
  elif low_rank is None:
    axes, origin = model.axes, params
    whole = lambda params, _: params
  else:
    frozen_axes, frozen = model.axes, params
    axes = lora.adapter_axes(network, low_rank)
    origin = jax.eval_shape(
      lambda: lora.init_adapters(jax.random.key(0), network, low_rank)
    )
    whole = lambda adapters, base: lora.merge(base, adapters, network, low_rank)
  start: Callable[[Any], Any] = lambda tree: tree
  wide = origin
  if copies is not None:
    if low_rank is not None:
      whole = jax.vmap(whole, (0, None))
    start = lambda tree: jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf[None], (copies, *leaf.shape)), tree
    )
    axes, wide = copied_axes(axes), jax.eval_shape(start, origin)
  return Trained(axes, wide, frozen_axes, frozen, whole, start, origin)


def _head_and_features(tree: Any) -> tuple[Any, Any]:
  """What is trained of a head on features, and the table that is not."""
  head = {k: v for k, v in tree.items() if k != heads.FEATURES}
  return head, {k: v for k, v in tree.items() if k not in head}


def copied_axes(axes: Any) -> Any:
  """Logical axes of copies side by side, which lie on no mesh axis."""
  return jax.tree.map(
    # As the axis of stacked layers, it makes no vector a matrix.
    lambda names: ("layers", *names),
    axes,
    is_leaf=lambda node: isinstance(node, tuple),
  )


def initial_trained(
  config: BackboneConfig,
  network: DecoderConfig,
  model: heads.Model,
  key: jax.Array,
  shardings: Any,
) -> Any:
  """What is trained beside something frozen, before the first step.

  Args:
    config: the `model` section, with "head" or "lora".
    network: from `decoder_config`.
    model: of that network.
    key: typed key of everything that is drawn.
    shardings: of what is trained.

  Returns:
    A head, the folder's where it has one, or adapters that change nothing yet.
  """
  if config.lora is not None:
    # A key of its own: the base is that of a run without adapters.
    own = jax.random.fold_in(jax.random.clone(key), 1)
    return lora.init_adapters(own, network, config.lora)
  token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), jnp.bool_)
  drawn = jax.jit(
    lambda key: {
      name: leaf
      for name, leaf in model.init(key, token, mask).items()
      if name != heads.FEATURES
    },
    out_shardings=shardings,
  )(key)
  folder = filesystem.resolved(config.init_from)
  found = weights.load_config(folder)
  same = ("num_outputs", "head_units", "head_activation", "mixed_layers")
  if any(getattr(found, name) != getattr(network, name) for name in same):
    return drawn
  real = dataclasses.replace(network, num_texts=None)
  return weights.load_head(folder, real, drawn)
