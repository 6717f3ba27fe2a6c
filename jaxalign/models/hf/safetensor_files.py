"""Safetensors files of a folder: found, checked, read tensor by tensor."""

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxalign.models.hf import digests, json_files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model-{:05d}-of-{:05d}.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": jnp.dtype(jnp.bfloat16),
}
MAX_SHARD_BYTES = 5 * 10**9


class Place(NamedTuple):
  """Where a tensor lies.

  Attributes:
    file: the file that holds it.
    start: its first byte in the file.
    shape: its shape.
    kind: its type in the words of the format, such as "F32".
  """

  file: str
  start: int
  shape: tuple[int, ...]
  kind: str


class TensorFiles:
  """Read-only view of a folder's tensors; nothing is loaded until asked for."""

  def __init__(
    self, path: str | os.PathLike[str], *, weights: str = WEIGHTS
  ) -> None:
    """Opens the file, or every shard that the index names.

    Args:
      path: a folder with model.safetensors, or with shards and their index.
      weights: name of the file that holds everything, where it is another one.

    Raises:
      FileNotFoundError: no weights, or a shard that the index names is missing.
      ValueError: only pickled weights, a damaged file, or an index that does
        not match its shards.
    """
    folder = pathlib.Path(path)
    self._places: dict[str, Place] = {}
    if (folder / weights).is_file():
      self._open(folder / weights)
    elif weights == WEIGHTS and (folder / INDEX).is_file():
      self._open_shards(folder)
    else:
      raise _no_weights(folder, weights)

  def names(self) -> set[str]:
    """Names of all tensors."""
    return set(self._places)

  def check(self) -> None:
    """Raises ValueError for a file that is not as it was written."""
    digests.check({place.file for place in self._places.values()})

  def file_of(self, name: str) -> str:
    """The file that holds a tensor."""
    return self._places[name].file

  def shape(self, name: str) -> tuple[int, ...]:
    """Shape of a tensor, without reading it."""
    return self._places[name].shape

  def dtype(self, name: str) -> np.dtype:
    """Type of a tensor in the file.

    Raises:
      ValueError: the tensor is not floating point.
    """
    place = self._places[name]
    if place.kind not in FLOATS:
      raise ValueError(
        f"{place.file}: tensor {name} must have a type in {', '.join(FLOATS)}, "
        f"got {place.kind}"
      )
    return FLOATS[place.kind]

  def rows(self, name: str, start: int, stop: int) -> np.ndarray:
    """Entries `start` to `stop` of a tensor's first axis, as in the file.

    The bytes go from the file into the result without a copy or a mapping, so
    that this is all the memory it takes.

    Args:
      name: the tensor.
      start: first entry.
      stop: the one after the last.

    Returns:
      A fresh array.

    Raises:
      ValueError: the tensor is not floating point, or the file was cut short.
    """
    place, dtype = self._places[name], self.dtype(name)
    array = np.empty((stop - start, *place.shape[1:]), dtype)
    width = dtype.itemsize * int(np.prod(place.shape[1:]))
    with open(place.file, "rb", buffering=0) as file:
      file.seek(place.start + start * width)
      view, done = memoryview(array.view(np.uint8).reshape(-1)), 0
      while done < array.nbytes:
        count = file.readinto(view[done:])
        if not count:
          raise ValueError(f"{place.file}: ends inside tensor {name}")
        done += count
    return array

  def _open(self, file: pathlib.Path) -> None:
    try:
      # Checks the header and the length; the mapping is dropped at once.
      with safetensors.safe_open(str(file), framework="numpy"):
        pass
    except safetensors.SafetensorError as error:
      raise ValueError(
        f"{file}: not a complete safetensors file ({error}); it may have been "
        "cut short, fetch or save it again"
      ) from error
    with open(file, "rb") as opened:
      length = int.from_bytes(opened.read(8), "little")
      header = json.loads(opened.read(length))
    for name, entry in sorted(header.items()):
      if name == "__metadata__":
        continue
      if name in self._places:
        raise ValueError(
          f"{file}: tensor {name} is also in {self._places[name].file}"
        )
      start = 8 + length + entry["data_offsets"][0]
      shape = tuple(entry["shape"])
      self._places[name] = Place(str(file), start, shape, entry["dtype"])

  def _open_shards(self, folder: pathlib.Path) -> None:
    index = folder / INDEX
    weight_map = json_files.read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
      isinstance(shard, str) for shard in weight_map.values()
    ):
      raise ValueError(
        f"{index}: weight_map must hold a file name per tensor, got "
        f"{str(weight_map)[:80]!r}"
      )
    for shard in sorted(set(weight_map.values())):
      if pathlib.PurePath(shard).name != shard:
        raise ValueError(f"{index}: shard {shard!r} must be a plain file name")
      if not (folder / shard).is_file():
        raise FileNotFoundError(f"{index}: shard {folder / shard} is missing")
      self._open(folder / shard)
    for name, shard in weight_map.items():
      if name not in self._places or self.file_of(name) != str(folder / shard):
        raise ValueError(f"{index}: tensor {name} is not in {shard}")


def _no_weights(folder: pathlib.Path, weights: str) -> Exception:
  pickles = sorted(
    file.name for file in folder.glob("*") if file.suffix in PICKLES
  )
  if pickles:
    return ValueError(
      f"{folder}: refused to read {pickles[0]}: unpickling runs any code that "
      "the file holds; save it again as safetensors "
      "(save_pretrained in transformers does)"
    )
  names = f"neither {WEIGHTS} nor {INDEX}" if weights == WEIGHTS else weights
  verb = "is" if weights == WEIGHTS else "is not"
  return FileNotFoundError(f"{folder}: {names} {verb} there")


def write_folder(
  path: str | os.PathLike[str],
  sizes: Mapping[str, int],
  make: Callable[[str], np.ndarray],
  config: Mapping[str, Any],
  *,
  max_shard_bytes: int = MAX_SHARD_BYTES,
  names: tuple[str, str] = (WEIGHTS, "config.json"),
) -> None:
  """Writes weights and config so that a kill leaves no half.

  All files are written in full under other names, then renamed. Where there is
  more than one shard, the older weights are removed before the first is
  renamed: a folder without weights is refused, one of two models is not.

  Args:
    path: the folder, made if it is not there.
    sizes: bytes of each tensor.
    make: gives a tensor by its name, contiguous; called shard by shard, so that
      no more than one shard is in memory.
    config: content of the config.
    max_shard_bytes: size from which a further file is begun.
    names: of a single file of weights, and of the config.
  """
  folder = pathlib.Path(path)
  folder.mkdir(parents=True, exist_ok=True)
  shards = _shards(sizes, max_shard_bytes)
  single = len(shards) == 1
  files = [
    names[0] if single else SHARD.format(i + 1, len(shards))
    for i in range(len(shards))
  ]
  texts: dict[str, Mapping[str, Any]] = {names[1]: config}
  if not single:
    owner = {n: f for f, s in zip(files, shards, strict=True) for n in s}
    total = {"total_size": sum(sizes.values())}
    texts = {INDEX: {"metadata": total, "weight_map": owner}} | texts
  draft = lambda name: folder / f".{name}.{os.getpid()}.tmp"
  try:
    for file, shard in zip(files, shards, strict=True):
      # transformers refuses a file that does not say which framework wrote it.
      safetensors.numpy.save_file(
        {name: make(name) for name in shard},
        str(draft(file)),
        metadata={"format": "pt", digests.KEY: digests.UNKNOWN},
      )
      digests.stamp(draft(file))
    for name, content in texts.items():
      text = json.dumps(content, indent=2, sort_keys=True) + "\n"
      draft(name).write_text(text, encoding="utf-8")
    for name in (*files, *texts):
      draft(name).chmod(0o644)  # safetensors writes for the owner alone
    _flush(map(draft, (*files, *texts)))
    if not single:
      (folder / INDEX).unlink(missing_ok=True)
      (folder / names[0]).unlink(missing_ok=True)
    for name in (*files, *texts):
      os.replace(draft(name), folder / name)
    if single and names[0] == WEIGHTS:
      (folder / INDEX).unlink(missing_ok=True)
    _flush([folder])
  finally:
    for name in (*files, *texts):
      draft(name).unlink(missing_ok=True)


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
  """Names in order, cut where the next tensor would exceed the limit."""
  shards: list[list[str]] = [[]]
  used = 0
  for name, size in sizes.items():
    if shards[-1] and used + size > limit:
      shards.append([])
      used = 0
    shards[-1].append(name)
    used += size
  return shards


def _flush(paths: Iterable[pathlib.Path]) -> None:
  """Waits until the disk has it: a rename may overtake its own data."""
  for path in paths:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
