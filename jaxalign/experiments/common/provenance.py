"""Fingerprints and versions that a run began with: `WORKDIR/origin.json`."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from etils import epath

from jaxalign.data.records import fingerprints, sources
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.io import artifact, filesystem, hub

FILE = "origin.json"
LIBRARIES = (
  "jaxalign",
  "jax",
  "jaxlib",
  "numpy",
  "flax",
  "optax",
  "orbax-checkpoint",
  "tokenizers",
  "transformers",
  "datasets",
)


def _of_tokenizer(value: str) -> str:
  if value == "byte":
    return value
  folder = filesystem.resolved(value, weights=False)
  return fingerprints.of_folder(folder, fingerprints.TOKENIZER)


def _of_model(value: str) -> str:
  patterns = fingerprints.WEIGHTS + fingerprints.TOKENIZER
  return fingerprints.of_folder(filesystem.resolved(value), patterns)


def _of_reward_models(value: tuple[str, ...]) -> str:
  """With what calibrates them, without where they come from."""
  parts = []
  for name in value:
    folder = epath.Path(filesystem.resolved(name))
    parts.append(_of_model(name))
    if (folder / artifact.DESCRIPTION).exists():
      described = json.loads((folder / artifact.DESCRIPTION).read_text())
      described.pop("provenance", None)
      parts.append(json.dumps(described, sort_keys=True))
  return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# Keys that name files -> a fingerprint of what the files hold.
CONTENT: dict[str, Callable[[Any], str]] = {
  "data.train_files": fingerprints.of_sources,
  "data.eval_files": fingerprints.of_sources,
  "files": fingerprints.of_sources,
  "data.tokenizer": _of_tokenizer,
  "data.chat_template": lambda value: fingerprints.of_file(
    sources.expand_variables(value)
  ),
  "model.init_from": _of_model,
  "model": _of_model,
  "reference": _of_model,
  "source.models": _of_reward_models,
  "judge.models": _of_reward_models,
}


def contents(config: Mapping[str, Any]) -> dict[str, str]:
  """A fingerprint of each input that a config names by its place.

  Args:
    config: resolved, as nested dicts.

  Returns:
    Dotted key -> hexadecimal; without keys that are None or empty.

  Raises:
    ValueError: a file or folder is not there.
  """
  found = {}
  for key, fingerprint in CONTENT.items():
    value: Any = config
    for name in key.split("."):
      value = value.get(name) if isinstance(value, Mapping) else None
    if value and not isinstance(value, Mapping):
      found[key] = fingerprint(value)
  return found


def revisions(config: Mapping[str, Any]) -> dict[str, str]:
  """The commit of each model that a config names by its id on the hub.

  Args:
    config: resolved, as nested dicts.

  Returns:
    Dotted key -> commit; without keys that name folders. Of several models of a
    key, their commits in order, joined by commas.

  Raises:
    ValueError: the hub is out of reach.
  """
  found = {}
  for key in CONTENT:
    value: Any = config
    for name in key.split("."):
      value = value.get(name) if isinstance(value, Mapping) else None
    names = value if isinstance(value, (list, tuple)) else (value,)
    if key.startswith("data.") and key.endswith("_files") or key == "files":
      continue
    commits = [hub.commit_of(n) for n in names if isinstance(n, str)]
    if any(commits):
      found[key] = ",".join(commit or "" for commit in commits)
  return found


def versions() -> dict[str, str]:
  """The versions of the libraries that decide numbers, by name."""
  found = {}
  for name in LIBRARIES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:  # run from a checkout
      continue
  return found


def read(workdir: epath.Path) -> dict[str, Any]:
  """What `write` has left, empty for a run of before there was such a file.

  Raises:
    ValueError: the file is damaged.
  """
  path = workdir / FILE
  if not path.exists():
    return {}
  try:
    return dict(json.loads(path.read_text()))
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"{path} is damaged ({error}): remove it to go on without comparing what "
      "the inputs held"
    ) from error


def write(workdir: epath.Path, content: Mapping[str, Any]) -> None:
  """Replaces the file.

  Args:
    workdir: of the run.
    content: "contents", "versions", "rows" and "changes", each where known.
  """
  configuration.write_json(workdir / FILE, dict(content))
