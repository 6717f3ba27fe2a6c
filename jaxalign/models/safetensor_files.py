"""The safetensors files of a folder: found, checked, read tensor by tensor."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax  # noqa: F401  registers bfloat16 with NumPy before a file is read
import numpy as np
import safetensors
import safetensors.numpy

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = ("F64", "F32", "F16", "BF16")


class TensorFiles:
  """Read-only view of a folder's tensors; nothing is loaded until asked for."""

  def __init__(self, path: str | os.PathLike[str]) -> None:
    """Opens the file, or every shard that the index names.

    Args:
      path: a folder with model.safetensors, or with shards and their index.

    Raises:
      FileNotFoundError: no weights, or a shard that the index names is missing.
      ValueError: only pickled weights, a damaged file, or an index that does
        not match its shards.
    """
    folder = pathlib.Path(path)
    self._handles: dict[str, Any] = {}
    self._file_of: dict[str, str] = {}
    if (folder / WEIGHTS).is_file():
      self._open(folder / WEIGHTS)
    elif (folder / INDEX).is_file():
      self._open_shards(folder)
    else:
      raise _no_weights(folder)

  def names(self) -> set[str]:
    """Names of all tensors."""
    return set(self._file_of)

  def file_of(self, name: str) -> str:
    """The file that holds a tensor."""
    return self._file_of[name]

  def shape(self, name: str) -> tuple[int, ...]:
    """Shape of a tensor, without reading it."""
    return tuple(self._slice(name).get_shape())

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """Part of a tensor, in the type that it has in the file.

    Args:
      name: the tensor.
      index: a slice per axis.

    Returns:
      A fresh array.

    Raises:
      ValueError: the tensor is not floating point.
    """
    view = self._slice(name)
    if view.get_dtype() not in FLOATS:
      raise ValueError(
        f"{self.file_of(name)}: tensor {name} must have a type in "
        f"{', '.join(FLOATS)}, got {view.get_dtype()}"
      )
    return view[index]

  def _slice(self, name: str) -> Any:
    return self._handles[self._file_of[name]].get_slice(name)

  def _open(self, file: pathlib.Path) -> None:
    try:
      handle = safetensors.safe_open(str(file), framework="numpy")
    except safetensors.SafetensorError as error:
      raise ValueError(
        f"{file}: not a complete safetensors file ({error}); it may have been "
        "cut short, fetch or save it again"
      ) from error
    self._handles[str(file)] = handle
    for name in sorted(handle.keys()):
      if name in self._file_of:
        raise ValueError(
          f"{file}: tensor {name} is also in {self._file_of[name]}"
        )
      self._file_of[name] = str(file)

  def _open_shards(self, folder: pathlib.Path) -> None:
    index = folder / INDEX
    try:
      weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError) as error:
      raise ValueError(f"{index}: no readable weight_map ({error})") from error
    for shard in sorted(set(weight_map.values())):
      if pathlib.PurePath(shard).name != shard:
        raise ValueError(f"{index}: shard {shard!r} must be a plain file name")
      if not (folder / shard).is_file():
        raise FileNotFoundError(f"{index}: shard {folder / shard} is missing")
      self._open(folder / shard)
    for name, shard in weight_map.items():
      if self._file_of.get(name) != str(folder / shard):
        raise ValueError(f"{index}: tensor {name} is not in {shard}")


def _no_weights(folder: pathlib.Path) -> Exception:
  pickles = sorted(
    file.name for file in folder.glob("*") if file.suffix in PICKLES
  )
  if pickles:
    return ValueError(
      f"{folder}: refused to read {pickles[0]}: unpickling runs any code that "
      "the file holds; save it again as safetensors "
      "(save_pretrained in transformers does)"
    )
  return FileNotFoundError(f"{folder}: neither {WEIGHTS} nor {INDEX} is there")


def write_folder(
  path: str | os.PathLike[str],
  tensors: Mapping[str, np.ndarray],
  config: Mapping[str, Any],
) -> None:
  """Writes model.safetensors and config.json so that a kill leaves no half.

  Both are written in full under other names, then renamed, weights first.

  Args:
    path: the folder, made if it is not there.
    tensors: contiguous arrays by name.
    config: content of config.json.
  """
  folder = pathlib.Path(path)
  folder.mkdir(parents=True, exist_ok=True)
  targets = [folder / WEIGHTS, folder / "config.json"]
  drafts = [folder / f".{file.name}.{os.getpid()}.tmp" for file in targets]
  try:
    # transformers refuses a file that does not say which framework wrote it.
    safetensors.numpy.save_file(
      dict(tensors), str(drafts[0]), metadata={"format": "pt"}
    )
    drafts[1].write_text(
      json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    _flush(drafts)
    for draft, target in zip(drafts, targets, strict=True):
      os.replace(draft, target)
    _flush([folder])
  finally:
    for draft in drafts:
      draft.unlink(missing_ok=True)


def _flush(paths: Iterable[pathlib.Path]) -> None:
  """Waits until the disk has it: a rename may overtake its own data."""
  for path in paths:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
