"""Older tokenizers: `model/` folders from before markers were written.

Those models were trained on bos, text and eos whatever their tokenizer adds by
itself. Here it is made to add just that, so that they are read as they were.
"""

import json
import os
from typing import Any

import tokenizers
import transformers

from jaxalign.data.tokenization import (
  chat_templates,
  own_tokenizers,
  tokenizer_checks,
)

DESCRIPTION = "jaxalign.json"
# The key of it that says how texts become ids; absent from the older ones.
TEXTS = "texts"
_MARKERS = {
  "pad_token": "<pad>",
  "bos_token": "<bos>",
  "eos_token": "<eos>",
}

Fast = transformers.PreTrainedTokenizerFast


def is_older(folder: str, fast: Fast) -> bool:
  """Whether a `model/` folder was written before tokenizers wrote markers."""
  file = os.path.join(folder, DESCRIPTION)
  if not os.path.isfile(file):
    return _is_own(fast)
  return TEXTS not in tokenizer_checks.json_object(file)


def upgraded(fast: Fast) -> Fast:
  """The tokenizer with the markers that its model was trained on.

  Args:
    fast: as it lies in the folder; it may be changed.

  Returns:
    A tokenizer that adds bos and eos to texts and, by its template, to chats.
  """
  if _is_own(fast):
    renamed = own_tokenizers.marked(_renamed(fast.backend_tokenizer))
    renamed.chat_template = fast.chat_template
    fast = renamed
  bos, eos = fast.bos_token, fast.eos_token
  backend = fast.backend_tokenizer
  backend.post_processor = own_tokenizers.enclosing(backend, bos, eos)
  if fast.chat_template is not None:
    fast.chat_template = marked_template(fast.chat_template, fast)
  return fast


def marked_template(template: Any, fast: Fast) -> Any:
  """A chat template, or several by name, as an older model was read with it."""
  if isinstance(template, dict):
    return {
      name: marked_template(part, fast) for name, part in template.items()
    }
  return chat_templates.marked_template(
    template, fast.bos_token, fast.eos_token, fast.backend_tokenizer
  )


def _is_own(fast: Fast) -> bool:
  """Whether it is one of `own_tokenizers` under its older names."""
  return bool(fast.split_special_tokens) and all(
    getattr(fast, role) == name for role, name in _MARKERS.items()
  )


def _renamed(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
  """The same tokens with the markers' names of today."""
  names = {old: own_tokenizers.MARKERS[role] for role, old in _MARKERS.items()}
  content = json.loads(backend.to_str())
  for token in content["added_tokens"]:
    token["content"] = names.get(token["content"], token["content"])
  content["model"]["vocab"] = {
    names.get(name, name): number
    for name, number in content["model"]["vocab"].items()
  }
  return tokenizers.Tokenizer.from_str(json.dumps(content))
