"""Gated reward model source: the score of ArmoRM, and its heads beside it."""

import functools
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.data.batching import token_store
from jaxalign.models import activations, heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import gated, json_files
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem
from jaxalign.runtime.reward_sources import model


def load_source(
  folder: str, network: DecoderConfig, **options: Any
) -> model.ModelSource:
  """`model.load_source`, with the gate of a folder that has one.

  Args:
    folder: of a reward model.
    network: of `weights.load_config`.
    **options: of `model.load_source`.
  """
  folder = filesystem.fetched(folder)
  theirs = json_files.read_object(epath.Path(folder) / "config.json")
  if gated.is_gated(theirs):
    gate = gated.load(folder, theirs)
    options["make"] = functools.partial(GatedSource, gate=gate)
  return model.load_source(folder, network, **options)


class GatedSource(model.ModelSource):
  """A model of several rewards with the gate that makes one of them."""

  def __init__(self, *args: Any, gate: gated.Gate, **options: Any) -> None:
    """As `ModelSource`, without calibration.

    Args:
      *args: network, parameters and tokenizer.
      gate: of the folder.
      **options: of `ModelSource`.
    """
    super().__init__(*args, **options)
    network, _, tokenizer = args
    mesh, rules = options["mesh"], options.get("rules", ())
    self.names = ("score", *self.names)
    self.units = (1.0, *self.units)
    self._mean, self._std = np.zeros(len(self.names)), np.ones(len(self.names))
    self._gate = gate
    self._turn = tokenizer.fast.backend_tokenizer.encode(
      gated.TURN, add_special_tokens=False
    ).ids
    apply = heads.reward_model(network).apply
    self._features = jax.jit(
      activations.laid_out(
        lambda params, ids, mask: apply(params, ids, mask).features,
        mesh,
        meshes.logical_table(rules),
      ),
      in_shardings=(
        model.parameter_places(network, mesh, rules),
        *(self._rows,) * 2,
      ),
      out_shardings=meshes.replicated(mesh),
    )

  def _raw(self, texts: token_store.Sequences, rows: np.ndarray) -> np.ndarray:
    """The score and the heads' rewards of a batch, [batch, 1 + K]."""
    rewards = super()._raw(texts, rows)
    _, (ids, mask) = self._padded(texts, rows)
    ends = np.array([self._turn_of(row) for row in ids])
    before = mask & (np.arange(ids.shape[1]) <= ends[:, None])
    batch = multihost.global_batch((ids, before), self._rows)
    features = multihost.fetch(self._features(self._params, *batch))
    score = self._gate(rewards, np.asarray(features))
    return np.concatenate([score[:, None], rewards], axis=1)

  def _turn_of(self, ids: np.ndarray) -> int:
    """Where the answer's turn begins in a row of tokens."""
    width = len(self._turn)
    windows = np.lib.stride_tricks.sliding_window_view(ids, width)
    found = np.flatnonzero(np.all(windows == self._turn, axis=1))
    if len(found):
      return int(found[-1])
    if not np.any(ids[2:]):  # an empty text, by which a server tries a source
      return 0
    raise ValueError(
      "the model's gate reads where the answer's turn begins, and a text has "
      f"no {gated.TURN!r}: prompts must be chat turns"
    )
