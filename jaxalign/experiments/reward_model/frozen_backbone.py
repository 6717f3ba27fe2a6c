"""Training a reward head on features: pairs of texts that are passed once.

With `model.trainable="head"` a text stands in a batch as its number, and the
features of all texts are a frozen parameter. So every recipe, coupling and
ensemble trains as it does on tokens. What is exported is the whole model, with
the head that was trained on top of the backbone it was trained on.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.data.batching import loader, token_store
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import text_features
from jaxalign.models import decoder, heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, filesystem

FOLDER = "features"
BUCKETS = (1,)  # a text is one token, its number


@dataclasses.dataclass(eq=False)
class TextNumbers(token_store.Sequences):
  """Sequences of one token each: the number of a text among all."""


class Texts:
  """The unique texts of a run, with their features.

  Attributes:
    number: of them.
    fingerprint: of the backbone and of how it is read.
  """

  def __init__(
    self,
    features: Sequence[text_features.Features],
    given: Sequence[token_store.Sequences],
    *,
    log_length: bool = False,
  ) -> None:
    """Numbers texts by the place of their features in the file.

    Args:
      features: of each layer that is read, those of all sequences of `given`,
        one list after another.
      given: `Sequences` of the run.
      log_length: whether texts have the log of their response's length as a
        last feature; texts that differ in it alone are two.
    """
    self._values = [one.values for one in features]
    counts = np.concatenate(
      [np.maximum(one.lengths - one.prompt_lengths, 1) for one in given]
    )
    told = np.stack([features[0].rows, counts * log_length], axis=1)
    unique, first, numbers = np.unique(
      told, axis=0, return_index=True, return_inverse=True
    )
    self._rows, numbers = (
      [one.rows[first] for one in features],
      numbers.reshape(-1),
    )
    self._log_lengths = None
    if log_length:
      self._log_lengths = np.log(unique[:, 1]).astype(np.float32)
    self.number = len(unique)
    self.fingerprint = "-".join(one.fingerprint for one in features)
    ends = np.cumsum([len(sequences) for sequences in given])
    self._numbers = {
      id(sequences): (sequences, part.astype(np.int32))
      for sequences, part in zip(
        given, np.split(numbers.reshape(-1), ends[:-1]), strict=True
      )
    }

  def of(self, sequences: token_store.Sequences) -> TextNumbers:
    """Sequences of the run as the numbers of their texts."""
    _, numbers = self._numbers[id(sequences)]
    size = len(numbers)
    return TextNumbers(
      values=numbers,
      starts=np.arange(size, dtype=np.int64),
      lengths=np.ones(size, np.int32),
      prompt_lengths=np.zeros(size, np.int32),
      max_length=1,
      counts=sequences.counts,
    )

  def pairs(self, pairs: preferences.Pairs) -> preferences.Pairs:
    """Pairs whose texts are numbers."""
    dataset = pairs.dataset
    return pairs._replace(
      dataset=dataclasses.replace(dataset, sequences=self.of(dataset.sequences))
    )

  def batches(self, source: Any) -> Any:
    """Batches of texts by their numbers, of each part of a source."""
    if not isinstance(source, loader.Batches):
      return source.over(self.batches)
    dataset = source.dataset
    inner, rows = dataset, None
    if isinstance(dataset, loader.Selection):
      inner, rows = dataset.dataset, dataset.rows
    inner = dataclasses.replace(inner, sequences=self.of(inner.sequences))
    if rows is not None:
      inner = loader.Selection(inner, rows)
    return source.over(inner, BUCKETS)

  def place(self, sharding: jax.sharding.Sharding) -> jax.Array:
    """The features of all texts on the devices, float32 [number, D]."""
    extra = self._log_lengths

    def part(at: tuple[slice, ...]) -> np.ndarray:
      found = [
        values[rows[at[0]]]
        for values, rows in zip(self._values, self._rows, strict=True)
      ]
      if extra is not None:
        found.append(extra[at[0]][:, None])
      return np.array(np.concatenate(found, axis=1)[:, at[1]])

    width = sum(values.shape[1] for values in self._values)
    shape = self.number, width + (extra is not None)
    return jax.make_array_from_callback(shape, sharding, part)


def read(
  model: backbone.BackboneConfig,
  network: DecoderConfig,
  given: Sequence[token_store.Sequences],
  tokenizer: Tokenizer,
  *,
  workdir: epath.Path,
  batch_size: int,
  buckets: Sequence[int],
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
) -> Texts:
  """Passes the texts of a run through the backbone, those that are new.

  Args:
    model: the `model` section.
    network: the whole model's description.
    given: all sequences that the run reads, the same on every process.
    tokenizer: of the model.
    workdir: gets `features/`, unless the config names another folder.
    batch_size: texts per forward pass at the longest text's bucket.
    buckets: padded lengths in tokens.
    mesh: devices.
    rules: overrides of the logical table.

  Returns:
    The texts.

  Raises:
    ValueError: a feature is not finite, or the folder is not on a disk.
  """
  tokenizer.check_embedded(network.vocab_size, str(model.init_from))
  folder = workdir / FOLDER
  if model.features is not None:
    folder = epath.Path(filesystem.resolved(model.features, weights=False))
  found = text_features.of_sequences(
    text_features.open_backbone(
      filesystem.resolved(str(model.init_from)),
      layer=network.mixed_layers or network.num_layers,
      pooling=network.pooling,
      dtype=network.dtype,
    ),
    _joined(given),
    cache=os.fspath(folder),
    pad_id=tokenizer.pad_id,
    batch_size=batch_size,
    buckets=buckets,
    mesh=mesh,
    rules=rules,
  )
  return Texts(found, given, log_length=network.log_length is not None)


def _joined(given: Sequence[token_store.Sequences]) -> token_store.Sequences:
  """All sequences as one list, one after another."""
  offsets = np.cumsum([0, *(len(part.values) for part in given)])
  return token_store.Sequences(
    values=np.concatenate([part.values for part in given]),
    starts=np.concatenate(
      [
        part.starts + offset
        for part, offset in zip(given, offsets[:-1], strict=True)
      ]
    ),
    lengths=np.concatenate([part.lengths for part in given]),
    prompt_lengths=np.concatenate([part.prompt_lengths for part in given]),
    max_length=max(part.max_length for part in given),
    counts={},
  )


def exported(
  model: backbone.BackboneConfig, network: DecoderConfig
) -> DecoderConfig:
  """The network as it is scored: with the term of the length, or without."""
  return dataclasses.replace(network, log_length=model.log_length)


def whole_model(
  model: backbone.BackboneConfig, network: DecoderConfig, head: Any
) -> tuple[Any, DecoderConfig]:
  """The backbone with a head that was trained on its features.

  Args:
    model: the `model` section.
    network: of the head, or of the whole.
    head: its parameters on the host, features left out or not.

  Returns:
    Parameters on the host, and the description that they belong to.
  """
  network = exported(model, dataclasses.replace(network, num_texts=None))
  folder = filesystem.resolved(str(model.init_from))
  loaded = weights.load_config(folder)
  # With the folder's own head, of any shape, which is left out here.
  params = weights.load_params(
    folder,
    dataclasses.replace(
      network,
      num_outputs=loaded.num_outputs or 1,
      log_length=loaded.log_length,
      head_units=loaded.head_units,
      head_activation=loaded.head_activation,
      mixed_layers=None,
    ),
    key=jax.random.key(0),
    cut=True,
  )
  still = {name: params[name] for name in decoder.PARTS}
  head = {k: v for k, v in head.items() if k != heads.FEATURES}
  return {**jax.tree.map(np.asarray, still), **head}, network


def export(
  model: backbone.BackboneConfig,
  network: DecoderConfig,
  params: Any,
  workdir: epath.Path,
  tokenizer: Tokenizer,
  description: artifact.Description,
) -> None:
  """Writes `model/`: the whole reward model.

  Args:
    model: the `model` section.
    network: of the head.
    params: of the head, with or without features.
    workdir: of the run.
    tokenizer: saved beside the weights.
    description: content of `jaxalign.json`.
  """
  head = multihost.fetch(
    {k: v for k, v in params.items() if k != heads.FEATURES}
  )
  if multihost.is_main():
    whole, network = whole_model(model, network, head)
    artifact.save(workdir / "model", whole, network, tokenizer, description)
