"""Adapters in the folder format of PEFT, both ways, score head inside."""

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models import heads, layout, lora, safetensor_files, translate
from jaxalign.models.config import DecoderConfig, available_dtype

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ROOT = "base_model.model."
SCORE = f"{ROOT}score.weight"
# Fields under which the difference would be another one -> values under which
# it is not; of a list, every entry must be among them.
ALLOWED: dict[str, tuple[Any, ...]] = {
  "bias": ("none",),
  "use_dora": (False,),
  "use_rslora": (False,),
  "lora_bias": (False,),
  "rank_pattern": ({},),
  "alpha_pattern": ({},),
  "layers_to_transform": (),
  "modules_to_save": ("score", "classifier"),
  "target_parameters": (),
  "layer_replication": (),
  "trainable_token_indices": (),
  "use_qalora": (False,),
}


def save_adapters(
  path: str | os.PathLike[str],
  adapters: lora.Adapters,
  params: heads.Params,
  config: DecoderConfig,
  low_rank: lora.LoraConfig,
  *,
  base: str,
) -> None:
  """Writes a folder that `PeftModel.from_pretrained` loads onto the base.

  Args:
    path: the folder, made if it is not there.
    adapters: as `lora.init_adapters` makes them.
    params: of the backbone; its score head is what the difference is added to,
      for the file holds the head as a whole.
    config: of the backbone.
    low_rank: what is adapted.
    base: name or folder of the backbone, for the reader.
  """
  modules = lora.adapted_modules(config, low_rank.targets)
  tensors: dict[str, np.ndarray] = {}
  dtype = np.dtype(config.param_dtype)
  for name, parts in modules.items():
    a = np.asarray(adapters[name]["a"], dtype)
    b = _reordered(np.asarray(adapters[name]["b"], dtype), parts, to_file=True)
    for layer, prefix in enumerate(_prefixes(parts[0])):
      tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a[layer].T)
      tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(b[layer].T)
  reward = config.num_outputs is not None
  if reward:
    head = params["score"]["kernel"] + adapters[lora.SCORE]["kernel"]
    tensors[SCORE] = np.ascontiguousarray(np.asarray(head, dtype).T)
  described = {
    "peft_type": "LORA",
    "task_type": "SEQ_CLS" if reward else "CAUSAL_LM",
    "base_model_name_or_path": base,
    "inference_mode": True,
    "r": low_rank.rank,
    "lora_alpha": low_rank.alpha,
    "lora_dropout": 0.0,
    "bias": "none",
    # Conv1D of GPT-2 keeps its weights as [in, out].
    "fan_in_fan_out": not next(iter(modules.values()))[0].row.transpose,
    "target_modules": sorted(modules),
    "modules_to_save": ["score"] if reward else None,
  }
  safetensor_files.write_folder(
    path,
    {name: tensor.nbytes for name, tensor in tensors.items()},
    tensors.__getitem__,
    described,
    max_shard_bytes=sum(tensor.nbytes for tensor in tensors.values()),
    names=(WEIGHTS, CONFIG),
  )


def load_adapters(
  path: str | os.PathLike[str], params: heads.Params, config: DecoderConfig
) -> tuple[lora.Adapters, lora.LoraConfig]:
  """Adapters of a PEFT folder, for a backbone that is already there.

  Args:
    path: the folder.
    params: of the backbone; the score head of the file becomes a difference to
      its own.
    config: of the backbone.

  Returns:
    The adapters and what they adapt.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: pickled weights, a kind of adapter that is not ours, or a tensor
      that is missing, left over or misshapen.
  """
  folder = pathlib.Path(path)
  low_rank_of, described = _read_config(folder)
  files = safetensor_files.TensorFiles(folder, weights=WEIGHTS)
  targets = _targets(files, config)
  low_rank = lora.LoraConfig(targets=targets, **low_rank_of)
  dtype = available_dtype("param_dtype", config.param_dtype)
  used: set[str] = set()

  def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in files.names():
      raise ValueError(f"{folder / WEIGHTS}: tensor {name} is missing")
    if files.shape(name) != shape:
      raise ValueError(
        f"{folder / WEIGHTS}: tensor {name} must have shape {shape}, got "
        f"{files.shape(name)}"
      )
    used.add(name)
    return files.rows(name, 0, shape[0]).astype(dtype)

  adapters: dict[str, Any] = {}
  for module, parts in lora.adapted_modules(config, targets).items():
    width, total = parts[0].inner[0], parts[0].total
    both = [
      (
        read(f"{prefix}.lora_A.weight", (low_rank.rank, width)).T,
        read(f"{prefix}.lora_B.weight", (total, low_rank.rank)).T,
      )
      for prefix in _prefixes(parts[0])
    ]
    a, b = (np.stack(factors) for factors in zip(*both, strict=True))
    b = _reordered(b, parts, to_file=False)
    adapters[module] = {"a": jnp.asarray(a), "b": jnp.asarray(b)}
  if config.num_outputs is not None:
    own = params["score"]["kernel"]
    kernel = own * 0
    if SCORE in files.names() or described["modules_to_save"]:
      kernel = jnp.asarray(read(SCORE, own.shape[::-1]).T) - own
    adapters[lora.SCORE] = {"kernel": kernel}
  for name in sorted(files.names() - used):
    raise ValueError(
      f"{folder / WEIGHTS}: tensor {name} does not belong to adapters of a "
      f"{translate.architecture(config)}"
    )
  return jax.tree.map(lambda leaf: leaf, adapters), low_rank


def _prefixes(part: layout.Part) -> list[str]:
  """Name of the adapted module in each layer."""
  return [f"{ROOT}{name.removesuffix('.weight')}" for name in part.names()]


def _reordered(
  b: np.ndarray, parts: list[layout.Part], *, to_file: bool
) -> np.ndarray:
  """Second factors with the columns as the file or as we have them."""
  columns = np.concatenate([part.columns for part in parts])
  return b[..., np.argsort(columns)] if to_file else b[..., columns]


def _read_config(
  folder: pathlib.Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
  file = folder / CONFIG
  if not file.is_file():
    raise FileNotFoundError(f"{file} is missing")
  try:
    described = json.loads(file.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f"{file}: not JSON ({error})") from error
  if described.get("peft_type") != "LORA":
    raise ValueError(
      f"{file}: peft_type must be 'LORA', got {described.get('peft_type')!r}"
    )
  for name, allowed in ALLOWED.items():
    value = described.get(name)
    entries = value if isinstance(value, list) else [value]
    if value is not None and any(entry not in allowed for entry in entries):
      words = " or ".join(map(repr, allowed)) if allowed else "empty"
      raise ValueError(f"{file}: {name} must be {words}, got {value!r}")
  for name in ("r", "lora_alpha"):
    if name not in described:
      raise ValueError(f"{file}: {name} is missing")
  described.setdefault("modules_to_save", None)
  rank, alpha = described["r"], described["lora_alpha"]
  return {"rank": rank, "alpha": float(alpha)}, described


def _targets(
  files: safetensor_files.TensorFiles, config: DecoderConfig
) -> tuple[str, ...]:
  """Our words for the projections that the file has factors of."""
  present = []
  for part in layout.parts(config).values():
    word = part.row.ours[0].split("/")[-2] if part.layered else None
    if word in lora.PROJECTIONS and part.row.ours[0].endswith("/kernel"):
      first = f"{_prefixes(part)[0]}.lora_A.weight"
      if first in files.names() and word not in present:
        present.append(word)
  return tuple(present)
