"""Gated reward heads of ArmoRM: several rewards, weighed by what is asked.

    score = Σ_k w_k(h) (rT)_k,   w(h) = c softmax(MLP(h) / τ)

r are the heads' rewards of the text, h is the feature vector where the answer's
turn begins, and T makes each reward independent of length. Only tensors are
read, none of the code that such a folder brings along.

References:
  Wang et al., "Interpretable preferences via multi-objective reward modeling
  and mixture-of-experts", 2024.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxalign.models.hf.safetensor_files import TensorFiles

ARCHITECTURE = "LlamaForRewardModelWithGating"
HEAD = "regression_layer.weight"
TRANSFORM = "reward_transform_matrix"
# How a Llama 3 chat goes from a user's turn to the answer; h is at its start.
TURN = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
_TEMPERATURE = "gating_temperature"
_FIELDS = ("auto_map", _TEMPERATURE, "gating_hidden_dim", "gating_n_hidden")


class Gate(NamedTuple):
  """Weights of K rewards as a function of D features.

  Attributes:
    layers: kernel [in, out] and bias [out] of each, ReLU between them.
    scale: c, what the weights sum to.
    temperature: τ > 0.
    transform: T, [K, K].
  """

  layers: tuple[tuple[np.ndarray, np.ndarray], ...]
  scale: float
  temperature: float
  transform: np.ndarray

  def __call__(self, rewards: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The score of B texts.

    Args:
      rewards: of the heads, [B, K].
      features: where the answer begins, [B, D].

    Returns:
      Scores, [B].
    """
    hidden = np.asarray(features, np.float64)
    for number, (kernel, bias) in enumerate(self.layers):
      hidden = (np.maximum(hidden, 0) if number else hidden) @ kernel + bias
    hidden = hidden / self.temperature
    weights = np.exp(hidden - hidden.max(axis=-1, keepdims=True))
    weights *= self.scale / weights.sum(axis=-1, keepdims=True)
    return np.sum(weights * (rewards @ self.transform), axis=-1)


def is_gated(theirs: Mapping[str, Any]) -> bool:
  """Whether a config.json is of such a model."""
  return theirs.get("architectures") == [ARCHITECTURE]


def plain(theirs: Mapping[str, Any]) -> dict[str, Any]:
  """The config.json of the same model as a classifier without its gate."""
  kept = {k: v for k, v in theirs.items() if k not in _FIELDS}
  return kept | {"architectures": ["LlamaForSequenceClassification"]}


def belongs(name: str) -> bool:
  """Whether a tensor is of the gate."""
  return name == TRANSFORM or name.startswith("gating.")


def load(path: str | os.PathLike[str], theirs: Mapping[str, Any]) -> Gate:
  """The gate of a folder.

  Args:
    path: the folder.
    theirs: content of its config.json.

  Returns:
    The gate, in float64.

  Raises:
    ValueError: a tensor is missing, or they do not fit each other.
  """
  files = TensorFiles(path)

  def tensor(name: str) -> np.ndarray:
    if name not in files.names():
      raise ValueError(f"{path}: tensor {name} is missing")
    shape = files.shape(name)
    return np.asarray(files.rows(name, 0, shape[0]), np.float64).reshape(shape)

  layers = []
  while f"gating.layers.{len(layers)}.weight" in files.names():
    start = f"gating.layers.{len(layers)}"
    bias = f"{start}.bias"
    kernel = tensor(f"{start}.weight").T
    layers.append(
      (kernel, tensor(bias) if bias in files.names() else np.zeros(1))
    )
  transform = tensor(TRANSFORM)
  if not layers or layers[-1][0].shape[1] != len(transform):
    raise ValueError(
      f"{path}: the gate must end in {len(transform)} weights, as "
      f"{TRANSFORM} has rows, got layers "
      f"{[kernel.shape for kernel, _ in layers]}"
    )
  return Gate(
    tuple(layers),
    float(tensor("gating.logit_scale")[0]),
    float(theirs.get(_TEMPERATURE, 10.0)),
    transform,
  )
