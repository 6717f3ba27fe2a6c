"""PEFT adapters: its folder format, both ways, score head inside."""

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models import heads, lora
from jaxalign.models.config import DecoderConfig, available_dtype
from jaxalign.models.hf import (
  config_map,
  param_map,
  peft_fields,
  safetensor_files,
)

WEIGHTS = "adapter_model.safetensors"
ROOT = "base_model.model."
SCORE = f"{ROOT}score.weight"


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
    names=(WEIGHTS, peft_fields.CONFIG),
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
    ValueError: pickled weights, a field under which the adapters would compute
      something else, or a tensor that is missing, left over or misshapen.
  """
  folder = pathlib.Path(path)
  described = peft_fields.read(folder)
  files = safetensor_files.TensorFiles(folder, weights=WEIGHTS)
  files.check()
  targets = _targets(described, config, str(folder / peft_fields.CONFIG))
  low_rank = lora.LoraConfig(described.rank, described.alpha, targets)
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
    if SCORE in files.names() or described.saves_head:
      kernel = jnp.asarray(read(SCORE, own.shape[::-1]).T) - own
    adapters[lora.SCORE] = {"kernel": kernel}
  for name in sorted(files.names() - used):
    raise ValueError(
      f"{folder / WEIGHTS}: tensor {name} does not belong to adapters of a "
      f"{config_map.architecture(config)} with the target_modules of "
      f"{peft_fields.CONFIG}"
    )
  return jax.tree.map(lambda leaf: leaf, adapters), low_rank


def _prefixes(part: param_map.Part) -> list[str]:
  """Name of the adapted module in each layer."""
  return [f"{ROOT}{name.removesuffix('.weight')}" for name in part.names()]


def _reordered(
  b: np.ndarray, parts: list[param_map.Part], *, to_file: bool
) -> np.ndarray:
  """Second factors with the columns as the file or as we have them."""
  columns = np.concatenate([part.columns for part in parts])
  return b[..., np.argsort(columns)] if to_file else b[..., columns]


def _targets(
  described: peft_fields.Adapter, config: DecoderConfig, file: str
) -> tuple[str, ...]:
  """Our words for the projections that PEFT adapts."""
  found: list[str] = []
  for part in param_map.parts(config).values():
    path = part.row.ours[0]
    if not part.layered or not path.endswith("/kernel"):
      continue
    modules = [prefix.removeprefix(ROOT) for prefix in _prefixes(part)]
    chosen = [module for module in modules if described.selects(module)]
    if 0 < len(chosen) < len(modules):
      raise ValueError(
        f"{file}: target_modules must name a projection in all layers, got "
        f"{chosen[0]} without {next(m for m in modules if m not in chosen)}; "
        f"{peft_fields.REMEDY}"
      )
    word = path.split("/")[-2]
    if chosen and word not in found:
      found.append(word)
  if not found:
    raise ValueError(
      f"{file}: target_modules {described.targets!r} is not a projection of a "
      f"{config_map.architecture(config)}"
    )
  return tuple(found)
