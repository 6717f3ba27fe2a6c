"""Model artifact `WORKDIR/model/`: what a stage hands to the next.

A Hugging Face folder (safetensors, config.json, tokenizer) that transformers,
TRL and vLLM read, plus `jaxalign.json` for fields that those formats lack.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

import jaxalign
from jaxalign.algorithms import reward_readout
from jaxalign.data.tokenization import older_tokenizers
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import json_files, weights
from jaxalign.runtime.io import description_fields, filesystem

FORMAT_VERSION = 1
DESCRIPTION = older_tokenizers.DESCRIPTION


@dataclasses.dataclass(frozen=True)
class Description:
  """What `jaxalign.json` holds.

  Attributes:
    kind: "reward" or "policy".
    heads: names of the reward outputs, empty for a policy.
    readout: how outputs are read as rewards, a kind of
      `reward_readout.Readout`.
    risk: what stands for a distribution, as there.
    alpha: as there.
    kappa: as there.
    max_length: longest sequence the model was trained on, in tokens.
    calibration: mean and standard deviation of each reward, as it is read from
      the outputs, on the reference responses, or None.
    utilities: utility per label of a distributional head, or None.
    label_cost: distance between those labels, [d][d], or None.
    texts: how texts become ids, as `Tokenizer.description` has it; None of a
      folder from before they were recorded, and before it is saved.
    mixture_weights: share of each head's group, or None.
    provenance: config, step and versions.
    pooling: where a reward model reads a text, as `DecoderConfig.pooling`.
    mixed_layers: layers that it mixes, as `DecoderConfig.mixed_layers`.
    log_length: whether it adds the term of a response's length or leaves it
      out, as `DecoderConfig.log_length`.
    head_units: of the hidden layer of its head, as `DecoderConfig.head_units`.
    head_activation: of these, as `DecoderConfig.head_activation`.
    format_version: of this file.
  """

  kind: str
  heads: tuple[str, ...]
  max_length: int
  calibration: Mapping[str, Sequence[float]] | None
  utilities: tuple[float, ...] | None
  mixture_weights: tuple[float, ...] | None
  provenance: Mapping[str, Any]
  readout: str = "rewards"
  risk: str = "mean"
  alpha: float | None = None
  kappa: float | None = None
  label_cost: tuple[tuple[float, ...], ...] | None = None
  texts: Mapping[str, Any] | None = None
  pooling: str = "last"
  mixed_layers: tuple[int, ...] | None = None
  log_length: str | None = None
  head_units: int | None = None
  head_activation: str = "tanh"
  format_version: int = FORMAT_VERSION

  def of_head(self, number: int) -> "Description":
    """That of a model which has one of the heads alone."""
    calibration = self.calibration
    if calibration is not None:
      calibration = {k: [each[number]] for k, each in calibration.items()}
    return dataclasses.replace(
      self,
      heads=(self.heads[number],),
      calibration=calibration,
      mixture_weights=None,
    )


def provenance(config: Any, step: int) -> dict[str, Any]:
  """Where a model comes from: versions, step and the resolved config."""
  return {
    "jaxalign": jaxalign.__version__,
    "jax": jax.__version__,
    "step": step,
    "config": dataclasses.asdict(config),
  }


def calibration(rewards: np.ndarray) -> dict[str, list[float]]:
  """Mean and standard deviation of each reward on reference responses.

  Args:
    rewards: [N, R, K] of N prompts with R responses each.

  Returns:
    {"mean": [K], "std": [K]}, population statistics.
  """
  outputs = np.asarray(rewards, np.float64).reshape(-1, rewards.shape[-1])
  return {"mean": outputs.mean(0).tolist(), "std": outputs.std(0).tolist()}


def save(
  path: epath.PathLike,
  params: Any,
  network: DecoderConfig,
  tokenizer: Tokenizer,
  description: Description,
) -> None:
  """Writes the folder; safe to repeat after a kill.

  `jaxalign.json` is written last, so a folder that has it is complete.

  Args:
    path: the `model/` folder.
    params: nested dict of host arrays.
    network: the decoder's description.
    tokenizer: saved beside the weights.
    description: content of `jaxalign.json`, but for `texts`.
  """
  path = epath.Path(path)
  path.mkdir(parents=True, exist_ok=True)
  (path / DESCRIPTION).unlink(missing_ok=True)
  with filesystem.filled(path) as folder:
    weights.save_own(folder, params, network)
    tokenizer.save(folder)
  content = json.dumps(
    dataclasses.asdict(description)
    | {older_tokenizers.TEXTS: tokenizer.description()},
    indent=2,
    sort_keys=True,
    allow_nan=False,
  )
  filesystem.write_atomically(path / DESCRIPTION, f"{content}\n".encode())


def load_description(path: epath.PathLike) -> Description:
  """Reads `jaxalign.json`.

  Args:
    path: a `model/` folder.

  Returns:
    The description.

  Raises:
    ValueError: there is none, because the folder is another program's or its
      stage did not finish; it has another format version, is damaged, or says
      what cannot be.
  """
  file = epath.Path(path) / DESCRIPTION
  if not file.exists():
    raise ValueError(
      f"{path} has no {DESCRIPTION}: it was not written by a finished stage. "
      "Another program's reward model gives raw rewards with calibrated=False; "
      "a reward source measures them on the responses of `calibrate_on`"
    )
  content = json_files.read_object(file)
  if content.get("format_version") != FORMAT_VERSION:
    raise ValueError(
      f"{file} has format version {content.get('format_version')}, this "
      f"version reads {FORMAT_VERSION}"
    )
  known = [field.name for field in dataclasses.fields(Description)]
  description_fields.check(content, str(file), known=known)
  for name in ("heads", "utilities", "mixture_weights", "mixed_layers"):
    if content.get(name) is not None:
      content[name] = tuple(content[name])
  if content.get("label_cost") is not None:
    content["label_cost"] = tuple(map(tuple, content["label_cost"]))
  described = Description(**content)
  try:
    reward_readout.Readout(
      described.readout,
      described.utilities,
      described.risk,
      described.alpha,
      described.kappa,
    )
  except ValueError as error:
    raise ValueError(f"{file}: {error}") from error
  return described
