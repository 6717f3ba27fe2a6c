"""Hugging Face Hub: models by id, as folders of this machine's cache.

Safetensors, configs and tokenizer files are fetched, never pickles or code, and
a folder that a stage has written is uploaded. The client is `huggingface_hub`,
with the cache, login and environment variables that it documents.
"""

import functools
import os
import pathlib
import re

from jaxalign.data.records import reach

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_SMALL = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_WEIGHTS = ("*.safetensors",)


def is_hub_id(text: str) -> bool:
  """Whether a name is OWNER/NAME or OWNER/NAME@REVISION, and no folder here.

  Args:
    text: as a config names a model.

  Returns:
    False where OWNER is a folder on this machine: then the name is a path, be
    it misspelt.
  """
  if not _ID.fullmatch(text) or os.path.exists(text):
    return False
  return not os.path.isdir(text.partition("/")[0])


@functools.cache
def snapshot(text: str, *, weights: bool) -> pathlib.Path:
  """The folder of a model of the hub, fetched if the cache lacks it.

  Args:
    text: OWNER/NAME, or with a branch, tag or commit as OWNER/NAME@REVISION.
    weights: whether files of weights are wanted too.

  Returns:
    The folder, whose name is the commit.

  Raises:
    ModuleNotFoundError: the client is not installed.
    ValueError: the hub is out of reach, has no such model, or no safetensors.
  """
  import huggingface_hub

  name, _, revision = text.partition("@")
  fetch = functools.partial(
    huggingface_hub.snapshot_download,
    name,
    revision=revision or None,
    allow_patterns=[*_SMALL, *(_WEIGHTS if weights else ())],
    ignore_patterns=["*/*"],
    endpoint=os.environ.get("HF_ENDPOINT"),
  )
  try:
    folder = pathlib.Path(fetch())
  except Exception as error:  # the client has exceptions of many bases
    at = f" --revision {revision}" if revision else ""
    raise ValueError(
      reach.why(f"no folder {text} here, and from the hub", error)
      + f"; where there is a connection, hf download {name}{at} --local-dir "
      "FOLDER, copy FOLDER here and name it"
    ) from error
  if weights and not any(folder.glob("*.safetensors")):
    raise ValueError(
      f"{text} holds no safetensors files on the hub, and no others are read: "
      "have its owner convert it, or give another model"
    )
  return folder


def commit_of(text: str) -> str | None:
  """The commit that a hub id stands for; None for a folder or other word.

  Args:
    text: as a config names a model.
  """
  return snapshot(text, weights=False).name if is_hub_id(text) else None


def check_upload(name: str) -> None:
  """Refuses, before anything is trained, what could not be uploaded to.

  Args:
    name: of a repository, OWNER/NAME.

  Raises:
    ModuleNotFoundError: the client is not installed.
    ValueError: another form, or nobody is logged in.
  """
  import huggingface_hub

  if not _ID.fullmatch(name) or "@" in name:
    raise ValueError(f"--push_to must be OWNER/NAME on the hub, got {name!r}")
  if huggingface_hub.get_token() is None:
    raise ValueError(
      f"--push_to={name} needs a token that may write there: hf auth login, or "
      "set HF_TOKEN"
    )


def upload(folder: os.PathLike[str] | str, name: str, *, message: str) -> str:
  """Uploads a folder as one commit; a repository that is made is private.

  Args:
    folder: on this machine; its files, without subfolders.
    name: of the repository, OWNER/NAME.
    message: of the commit.

  Returns:
    The address of the commit.

  Raises:
    ValueError: the hub is out of reach, or refuses.
  """
  import huggingface_hub

  api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
  try:
    api.create_repo(name, private=True, exist_ok=True)
    made = api.upload_folder(
      repo_id=name,
      folder_path=folder,
      commit_message=message,
      ignore_patterns=["*/*"],
    )
  except Exception as error:  # the client has exceptions of many bases
    raise ValueError(
      reach.why(f"{name} on the hub", error)
      + "; the folder is complete, and the same command tries again, as does "
      f"hf upload {name} {os.fspath(folder)}"
    ) from error
  return str(made.commit_url)
