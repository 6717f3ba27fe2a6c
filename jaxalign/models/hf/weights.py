"""Hugging Face weights in and out: safetensors, one parameter at a time.

Nothing is guessed: a tensor that is missing, left over or misshapen is an error
that names the file and the tensor.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig, available_dtype
from jaxalign.models.hf import config_map, json_files, loader, param_map
from jaxalign.models.hf.safetensor_files import (
  MAX_SHARD_BYTES,
  TensorFiles,
  write_folder,
)

SCORE = "score.weight"

Path = str | os.PathLike[str]
Apply = Callable[..., jax.Array]


def load_config(path: Path) -> DecoderConfig:
  """The config of a Hugging Face folder.

  Args:
    path: the folder.

  Returns:
    The config; `num_outputs` is set if the folder holds a classifier, by the
    architecture that it names, else by its tensors.

  Raises:
    FileNotFoundError: there is no config.json.
    ValueError: a field is missing, unknown or not supported, by name.
  """
  file = pathlib.Path(path) / "config.json"
  theirs = json_files.read_object(file)
  scores = not theirs.get("architectures") and SCORE in _tensor_names(path)
  return config_map.from_json(theirs, str(file), classifier=scores)


def load_params(
  path: Path,
  config: DecoderConfig,
  *,
  key: jax.Array | None = None,
  shardings: Any = None,
  cut: bool = False,
) -> heads.Params:
  """The parameters of a Hugging Face folder, in our layout.

  Each device's share is read and placed by itself, layer by layer, so that the
  host holds no more than a tensor beside the parameters.

  Args:
    path: the folder.
    config: as `load_config` gave it; `num_outputs` and `value_head` may differ,
      for a reward model is read from a language model's folder by leaving its
      language head in the file.
    key: typed key from which a score or value head that the folder lacks is
      drawn; None makes that an error.
    shardings: tree of params with a sharding in place of each array; None puts
      everything on the default device.
    cut: whether the folder may hold more layers than the config, and heads that
      it does not have: these stay in the file.

  Returns:
    Nested dict of arrays.

  Raises:
    FileNotFoundError: there are no weights, or a shard is missing.
    ValueError: pickled weights, or other bytes than were saved; a tensor is
      missing, left over or has the wrong shape; or a head is missing and `key`
      is None.
  """
  dtype = available_dtype("param_dtype", config.param_dtype)
  parts = param_map.parts(config)
  files = TensorFiles(path)
  names = loader.match_tensors(
    files, parts, config, path, may_draw=key is not None, cut=cut
  )
  files.check()
  shapes = param_map.abstract_params(config)
  places = dict.fromkeys(parts)
  if shardings is not None:
    leaves = jax.tree.structure(shapes).flatten_up_to(shardings)
    places = dict(zip(param_map.flat(shapes), leaves, strict=True))
  arrays = []
  for leaf in param_map.flat(shapes):
    if parts[leaf].names()[0] in names:
      array = loader.read_parameter(
        files, parts[leaf], names, dtype, places[leaf]
      )
    else:
      array = _place(_draw(config, leaf, key), places[leaf])
    arrays.append(array)
  return jax.tree.unflatten(jax.tree.structure(shapes), arrays)


def load_head(
  path: Path, config: DecoderConfig, like: heads.Params
) -> heads.Params:
  """The reward head of a folder, without its backbone.

  Args:
    path: the folder of a reward model.
    config: as `load_config` gave it.
    like: the parameters to read, such as `{"score": {"kernel": array}}`.

  Returns:
    The same tree with the folder's arrays, placed as those of `like`.

  Raises:
    ValueError: a tensor is missing or has the wrong shape.
  """
  parts, files = param_map.parts(config), TensorFiles(path)
  arrays = []
  for leaf, drawn in param_map.flat(like).items():
    (name,) = parts[leaf].names()
    if name not in files.names():
      raise ValueError(f"{path}: tensor {name} is missing")
    if files.shape(name) != parts[leaf].tensor_shape:
      raise ValueError(
        f"{path}: tensor {name} must have shape {parts[leaf].tensor_shape}, "
        f"got {files.shape(name)}"
      )
    arrays.append(
      loader.read_parameter(
        files, parts[leaf], {name: name}, drawn.dtype, drawn.sharding
      )
    )
  return jax.tree.unflatten(jax.tree.structure(like), arrays)


def load_causal_lm(
  path: Path, *, dtype: str = "float32"
) -> tuple[Apply, heads.Params, DecoderConfig]:
  """A language model from a Hugging Face folder.

  Args:
    path: the folder, with config.json and safetensors.
    dtype: type of the matrix products; parameters are float32, or float64 if
      this is.

  Returns:
    `(apply, params, config)`; `apply(params, tokens [B, T] int, mask [B, T]
    bool) -> logits [B, T, V]` is pure and not jitted, and padding on either
    side is free. `config` is hashable.

  Raises:
    FileNotFoundError, ValueError: as `load_config` and `load_params`.
  """
  config = _typed(load_config(path), dtype)
  config = dataclasses.replace(config, num_outputs=None)
  return _logits(config), load_params(path, config), config


def load_reward_model(
  path: Path, *, dtype: str = "float32"
) -> tuple[Apply, heads.Params, DecoderConfig]:
  """A reward model from a Hugging Face sequence classifier.

  Args:
    path: the folder, with config.json and safetensors.
    dtype: type of the matrix products; parameters are float32, or float64 if
      this is.

  Returns:
    `(apply, params, config)`; `apply(params, tokens [B, T] int, mask [B, T]
    bool, response=None) -> rewards [B, num_outputs]`, float32 or wider, is pure
    and not jitted; `response`, bool [B, T], marks what `pooling="mean"` is the
    mean of. `config` is hashable.

  Raises:
    FileNotFoundError, ValueError: as `load_config` and `load_params`, and a
      folder that holds no classifier.
  """
  config = _typed(load_config(path), dtype)
  if config.num_outputs is None:
    raise ValueError(
      f"{path}: holds a language model, so tensor score.weight is missing; "
      "load_params with a key starts a reward head from scratch"
    )
  return _rewards(config), load_params(path, config), config


def save_pretrained(
  path: Path, params: heads.Params, config: DecoderConfig
) -> None:
  """Writes a folder that transformers loads with equal outputs.

  The files are written under other names and renamed when complete. A reward
  model is read by transformers at the last token that is not `pad_id`: keep a
  `pad_id` that occurs in no text, or let the mask decide, as we do. Above 5 GB
  there are several files with an index, written one after the other.

  Args:
    path: the folder, made if it is not there; other files in it stay.
    params: nested dict of arrays, all on this host.
    config: what they belong to, of a known family.

  Raises:
    ValueError: params do not fit the config, the family or transformers cannot
      express it, or a reward model has no `pad_id`.
  """
  beyond = config_map.beyond_transformers(config)
  if beyond:
    raise ValueError(
      f"transformers has no reward model with {beyond}; hf.weights.save_own "
      "writes a folder that jaxalign alone reads"
    )
  save_own(path, params, config)


def save_own(path: Path, params: heads.Params, config: DecoderConfig) -> None:
  """Writes a folder that `load_params` reads, of any model.

  Where transformers can express the model it is that of `save_pretrained`, else
  one that transformers refuses.

  Args:
    path: as there.
    params: as there.
    config: as there.

  Raises:
    ValueError: as there, but for what transformers alone cannot express.
  """
  theirs = config_map.to_json(config)
  parts = param_map.parts(config)
  leaves = param_map.flat(params)
  _check_leaves(leaves, parts)
  dtype = np.dtype(config.param_dtype)
  sources: dict[str, tuple[param_map.Part, int]] = {}
  for row in dict.fromkeys(part.row for part in parts.values()):
    part = parts[row.ours[0]]
    sources |= {name: (part, i) for i, name in enumerate(part.names())}

  def make(name: str) -> np.ndarray:
    first, layer = sources[name]
    whole = np.empty((*first.inner[:-1], first.total), dtype)
    for leaf in first.row.ours:
      array = leaves[leaf][layer] if first.layered else leaves[leaf]
      whole[..., parts[leaf].columns] = np.asarray(array)
    return np.ascontiguousarray(whole.T if first.row.transpose else whole)

  sizes = {
    name: int(np.prod(part.tensor_shape)) * dtype.itemsize
    for name, (part, _) in sources.items()
  }
  write_folder(path, sizes, make, theirs, max_shard_bytes=MAX_SHARD_BYTES)


def _tensor_names(path: Path) -> set[str]:
  """Names of a folder's tensors, none where its weights are elsewhere."""
  try:
    return TensorFiles(path).names()
  except FileNotFoundError:
    return set()


@functools.cache
def _logits(config: DecoderConfig) -> Apply:
  model = heads.causal_lm(config)
  return lambda params, tokens, mask: model.apply(params, tokens, mask).logits


@functools.cache
def _rewards(config: DecoderConfig) -> Apply:
  model = heads.reward_model(config)
  return lambda params, tokens, mask, response=None: (
    model.apply(params, tokens, mask, response=response).rewards
  )


def _typed(config: DecoderConfig, dtype: str) -> DecoderConfig:
  param_dtype = "float64" if dtype == "float64" else "float32"
  return dataclasses.replace(config, dtype=dtype, param_dtype=param_dtype)


def _draw(config: DecoderConfig, leaf: str, key: jax.Array) -> jax.Array:
  """One freshly initialised parameter; the compiler drops all others."""
  tokens = jnp.zeros((1, 1), jnp.int32)
  init = heads.model_of(config).init
  return jax.jit(lambda k: param_map.flat(init(k, tokens, tokens == 0))[leaf])(
    key
  )


def _place(array: jax.Array, sharding: Any) -> jax.Array:
  if sharding is None:
    return array
  host = np.asarray(array)
  return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])


def _check_leaves(
  leaves: Mapping[str, Any], parts: Mapping[str, param_map.Part]
) -> None:
  for leaf, part in parts.items():
    if leaf not in leaves:
      raise ValueError(f"params: {leaf} is missing")
    if np.shape(leaves[leaf]) != part.shape:
      raise ValueError(
        f"params: {leaf} must have shape {part.shape}, got "
        f"{np.shape(leaves[leaf])}"
      )
  for leaf in leaves:
    if leaf not in parts:
      raise ValueError(f"params: {leaf} does not belong to this config")
