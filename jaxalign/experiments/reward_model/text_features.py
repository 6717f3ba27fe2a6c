"""Text features of a frozen backbone: each unique text passed once, and kept.

What a reward head reads of a text depends on the backbone alone, so it is
computed once and lies in a file that any number of heads, seeds and recipes
read. The file is named by a fingerprint of the weights and of how they are
read; a row in it by the ids of its text.
"""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxalign.data.batching import token_store
from jaxalign.data.records import fingerprints
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.models import activations, heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import feature_store, filesystem, progress_bar
from jaxalign.runtime.reward_sources import model as model_rewards

log = logging.getLogger("jaxalign")

VERSION = 1  # of what the numbers are; a change makes files anew
BUCKETS = (32, 64, 128, 256, 512, 1024, 2048)


class Backbone(NamedTuple):
  """A frozen backbone and how it is read.

  Attributes:
    network: its description, cut to the layers that are read.
    folder: of its weights, on this machine.
    about: what decides the features of a text at each layer that is read, as
      values of JSON.
  """

  network: DecoderConfig
  folder: str
  about: tuple[dict[str, Any], ...]

  @property
  def fingerprints(self) -> tuple[str, ...]:
    """Of weights, layer, pooling and compute type; 16 hexadecimal digits."""
    texts = (repr(sorted(about.items())) for about in self.about)
    return tuple(
      hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts
    )


class Features(NamedTuple):
  """Features of N texts.

  Attributes:
    values: of all texts in the file, mapped from it, float32 [n, D].
    rows: where each text's are among them, int64 [N].
    fingerprint: of the backbone and of how it is read.
  """

  values: np.ndarray
  rows: np.ndarray
  fingerprint: str

  def array(self) -> np.ndarray:
    """The features in the order of the texts, a copy, float32 [N, D]."""
    return np.asarray(self.values[self.rows])


def open_backbone(
  folder: str,
  *,
  layer: int | tuple[int, ...] | None = None,
  pooling: str = "last",
  dtype: str = "float32",
) -> Backbone:
  """A folder in Hugging Face layout, to be read at a layer or at several.

  Args:
    folder: of a language model or a reward model.
    layer: blocks that a text goes through, 1 to all of them, before the final
      norm; None for all. Several, ascending, are read in one pass.
    pooling: as of `DecoderConfig`.
    dtype: compute type of the matrix products.

  Returns:
    The backbone; no parameter is read yet.

  Raises:
    ValueError: the model has no such layer.
  """
  local = filesystem.fetched(folder)
  loaded = weights.load_config(local)
  layers = layer if isinstance(layer, tuple) else (layer or loaded.num_layers,)
  if not 1 <= min(layers) <= max(layers) <= loaded.num_layers:
    raise ValueError(
      f"layer must be in [1, {loaded.num_layers}], the layers of {folder}, or "
      f"None for the last, got {layer}"
    )
  network = dataclasses.replace(
    loaded,
    num_layers=layers[-1],
    mixed_layers=layers if len(layers) > 1 else None,
    num_outputs=loaded.num_outputs or 1,
    value_head=False,
    num_values=1,
    pooling=pooling,
    dtype=dtype,
    dropout=0.0,
  )
  about = {
    "version": VERSION,
    "weights": fingerprints.of_folder(local, fingerprints.WEIGHTS),
    "pooling": pooling,
    "dtype": dtype,
  }
  each = tuple({**about, "layer": number} for number in layers)
  return Backbone(network, os.fspath(local), each)


def of_texts(
  folder: str,
  texts: Sequence[str | tuple[str, str]],
  *,
  cache: str,
  layer: int | None = None,
  pooling: str = "last",
  dtype: str = "float32",
  max_length: int = 512,
  batch_size: int = 16,
  buckets: Sequence[int] = BUCKETS,
  mesh: jax.sharding.Mesh | None = None,
) -> Features:
  """Features of texts by a model's folder, from the cache where they are there.

  Args:
    folder: of a language model or a reward model, with its tokenizer.
    texts: responses alone, or (prompt, response); equal ones are passed once.
    cache: folder for files of features, which any number of calls share.
    layer: see `open_backbone`.
    pooling: see `open_backbone`.
    dtype: see `open_backbone`.
    max_length: tokens that a text is cut to, from the left of its prompt.
    batch_size: texts per forward pass at `max_length`, over all devices;
      shorter ones go in larger batches.
    buckets: padded lengths in tokens; one compilation each.
    mesh: devices; None takes all of them.

  Returns:
    The features, mapped from a file.

  Raises:
    ValueError: no text, no such layer, or a text that the tokenizer refuses.
  """
  backbone = open_backbone(folder, layer=layer, pooling=pooling, dtype=dtype)
  tokenizer = tokenizer_files.load_tokenizer(backbone.folder)
  tokenizer.check_embedded(backbone.network.vocab_size, folder)
  pairs = [("", text) if isinstance(text, str) else text for text in texts]
  sequences = token_store.encode(
    (Record(prompt, (response,)) for prompt, response in pairs),
    tokenizer,
    max_length=min(max_length, backbone.network.max_positions),
  )
  (found,) = of_sequences(
    backbone,
    sequences,
    cache=cache,
    pad_id=tokenizer.pad_id,
    batch_size=batch_size,
    buckets=buckets,
    mesh=meshes.make_mesh(meshes.MeshConfig()) if mesh is None else mesh,
  )
  return found


def of_sequences(
  backbone: Backbone,
  sequences: token_store.Sequences,
  *,
  cache: epath.PathLike,
  pad_id: int,
  batch_size: int,
  buckets: Sequence[int],
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...] = (),
) -> tuple[Features, ...]:
  """Features of tokenised texts; a pass that was killed goes on where it was.

  Each layer has a file of its own, which it shares with those who read it
  alone. A text that one of them lacks is passed once for all that lack it.

  Args:
    backbone: from `open_backbone`.
    sequences: the texts, the same on every process.
    cache: folder for files of features, on a disk that all processes see.
    pad_id: id under the mask.
    batch_size: texts per forward pass at the longest text's bucket, over all
      devices; as many tokens at the others.
    buckets: padded lengths in tokens.
    mesh: devices.
    rules: overrides of the logical table.

  Returns:
    The features of each layer, mapped from files.

  Raises:
    ValueError: a feature is not finite, or the cache is not on a disk.
  """
  stores = [
    feature_store.FeatureStore(
      os.path.join(os.fspath(cache), fingerprint),
      about,
      backbone.network.embed_dim,
    )
    for fingerprint, about in zip(
      backbone.fingerprints, backbone.about, strict=True
    )
  ]
  keys = _keys(sequences, backbone.network.pooling)
  # What is all there is read without waiting for another's long pass.
  if jax.process_count() > 1 or _lacking(stores, keys).any():
    _add_new(
      stores, backbone, sequences, keys, pad_id, batch_size, buckets, mesh,
      rules,
    )  # fmt: skip
  for store in stores:
    store.refresh()
  return tuple(
    Features(store.values(), store.rows(keys), fingerprint)
    for store, fingerprint in zip(stores, backbone.fingerprints, strict=True)
  )


def _lacking(
  stores: Sequence[feature_store.FeatureStore], keys: Sequence[bytes]
) -> np.ndarray:
  """Which stores lack which texts, bool [stores, texts]."""
  return np.stack([store.rows(keys) < 0 for store in stores])


def _add_new(
  stores: Sequence[feature_store.FeatureStore],
  backbone: Backbone,
  sequences: token_store.Sequences,
  keys: list[bytes],
  pad_id: int,
  batch_size: int,
  buckets: Sequence[int],
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
) -> None:
  """Passes the texts that are not there, alone with the files."""
  main = multihost.is_main()
  with contextlib.ExitStack() as locks:
    # From the lowest layer on, so that nobody waits for who waits for him.
    for store in stores if main else ():
      locks.enter_context(store.writing())
    multihost.barrier("features: the file is ours")
    for store in stores:
      store.refresh()
    lacking = _lacking(stores, keys).any(0)
    # A text that stands there twice is new once.
    new = {
      keys[number]: number for number in np.flatnonzero(lacking)[::-1].tolist()
    }
    numbers = np.sort(np.fromiter(new.values(), np.int64, len(new)))
    log.info(
      "features of %s texts, %s of them new, in %s",
      f"{len(set(keys)):,}",
      f"{len(new):,}",
      ", ".join(str(store.folder) for store in stores),
    )
    for part, values in _passes(
      backbone, sequences, numbers, pad_id, batch_size, buckets, mesh, rules
    ):
      passed = [keys[number] for number in part]
      for store, lacks, own in zip(
        stores, _lacking(stores, passed), values.swapaxes(0, 1), strict=True
      ):
        if main and lacks.any():
          wanted = np.flatnonzero(lacks)
          store.append([passed[at] for at in wanted], own[wanted])
    multihost.barrier("features: all are there")


def _keys(sequences: token_store.Sequences, pooling: str) -> list[bytes]:
  """What tells texts apart: their ids and, where it is read, the response."""
  found = []
  for number in range(len(sequences)):
    ids = np.ascontiguousarray(sequences[number], np.int32).tobytes()
    begin = int(sequences.prompt_lengths[number]) if pooling == "mean" else 0
    found.append(
      hashlib.blake2b(
        ids + begin.to_bytes(4, "little"), digest_size=feature_store.KEY_BYTES
      ).digest()
    )
  return found


def _passes(
  backbone: Backbone,
  sequences: token_store.Sequences,
  numbers: np.ndarray,
  pad_id: int,
  batch_size: int,
  buckets: Sequence[int],
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Numbers of N sequences with [N, layers, D], the longest ones first."""
  if not len(numbers):
    return
  network = backbone.network
  sizes = model_rewards.fitting_buckets(
    tuple(buckets), network.max_positions, backbone.folder
  )
  plan = _plan(sequences.lengths, numbers, sizes, batch_size, mesh)
  # A mixture of layers, if the folder has one, is none of this.
  stored = dataclasses.replace(network, mixed_layers=None)
  params = weights.load_params(
    backbone.folder,
    stored,
    key=jax.random.key(0),  # of a head that is not read
    shardings=model_rewards.parameter_places(stored, mesh, rules),
    cut=True,
  )
  rows = meshes.batch_sharding(mesh)
  forward = jax.jit(
    activations.laid_out(
      functools.partial(heads.pooled_features, network),
      mesh,
      meshes.logical_table(rules),
    ),
    in_shardings=(jax.tree.map(lambda leaf: leaf.sharding, params),)
    + 3 * (rows,),
    out_shardings=meshes.replicated(mesh),
  )
  for part, bucket, size in progress_bar.watched(
    plan, total=len(plan), what="passing texts"
  ):
    # The last text stands again where there are too few.
    filled = np.pad(part, (0, size - len(part)), mode="edge")
    share = size // jax.process_count()
    mine = filled[share * jax.process_index() :][:share]
    ids, mask = sequences.padded(mine, bucket, pad_id)
    response = mask & (
      np.arange(bucket) >= sequences.prompt_lengths[mine][:, None]
    )
    batch = multihost.global_batch((ids, mask, response), rows)
    values = multihost.fetch(forward(params, *batch))
    values = np.asarray(values[: len(part)], np.float32)
    yield part, values.reshape(len(part), -1, network.embed_dim)


def _plan(
  lengths: np.ndarray,
  numbers: np.ndarray,
  buckets: Sequence[int],
  batch_size: int,
  mesh: jax.sharding.Mesh,
) -> list[tuple[np.ndarray, int, int]]:
  """(sequences, padded length, rows) of each batch, one shape per bucket."""
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  bucket_of = np.searchsorted(buckets, lengths[numbers])
  if bucket_of.max() == len(buckets):
    raise ValueError(
      "the largest of buckets must hold the longest text, "
      f"{lengths[numbers].max()} tokens, got {tuple(buckets)}"
    )
  tokens = batch_size * buckets[int(bucket_of.max())]
  plan = []
  for bucket in np.unique(bucket_of)[::-1]:
    inside = numbers[bucket_of == bucket]
    inside = inside[np.argsort(-lengths[inside], kind="stable")]
    size = min(max(1, tokens // buckets[bucket]), len(inside))
    size = -(-size // shards) * shards
    plan += [
      (inside[start : start + size], buckets[bucket], size)
      for start in range(0, len(inside), size)
    ]
  return plan
