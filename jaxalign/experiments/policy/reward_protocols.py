"""Protocols of reward servers: OpenRLHF, vLLM, SGLang and this library's own.

Their clients send a text that a chat template has rendered, and take one number
for it. How a client of each calls is in docs/trainers.md.
"""

import base64
import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.records import columns as kinds
from jaxalign.data.tokenization.turns import Rendered
from jaxalign.runtime.reward_sources import http

OWNER = "jaxalign"


@dataclasses.dataclass(frozen=True)
class Served:
  """What answers need to know of the server.

  Attributes:
    names: of the source's outputs.
    model: name of the model, for clients that ask for it.
    output: which of the names is the reward where a protocol has place for one;
      None where there is one output, or for an error where there are several.
    ends: texts that are dropped from the end of a rendered text.
    since: when the server began, in seconds since 1970.
  """

  names: tuple[str, ...]
  model: str
  output: str | None
  ends: tuple[str, ...]
  since: int

  def column(self, content: Mapping[str, Any]) -> int:
    """Which output a request wants, by its `model` or by `output`.

    Raises:
      ValueError: there are several and neither names one.
    """
    for name in (content.get("model"), self.output):
      if name in self.names:
        return self.names.index(name)
    if len(self.names) > 1:
      raise ValueError(
        f"one of the outputs {', '.join(self.names)} must be asked for: by "
        "serve.output, or by `model` in the request"
      )
    return 0


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How requests to one path are read and answered.

  Attributes:
    path: of the address.
    parse: content of a request to its texts; raises ValueError for one that
      cannot be answered.
    answer: content and reply to the JSON of the answer.
  """

  path: str
  parse: Callable[[Any, Served], http.Texts]
  answer: Callable[[Any, http.Reply, Served], dict[str, Any]]


def models(served: Served) -> dict[str, Any]:
  """The answer to GET /v1/models: the model, and its outputs if several."""
  outputs = served.names if len(served.names) > 1 else ()
  return {
    "object": "list",
    "data": [
      {
        "id": name,
        "object": "model",
        "created": served.since,
        "owned_by": OWNER,
        "root": served.model,
        "parent": None if name == served.model else served.model,
      }
      for name in (served.model, *outputs)
    ],
  }


def _checked(content: Any, *fields: str) -> dict[str, Any]:
  if not isinstance(content, dict):
    raise ValueError(
      f"the body must be an object with {' or '.join(fields)}, got "
      f"{kinds.kind(content)}"
    )
  return content


def _rendered(text: str, served: Served) -> Rendered:
  for end in served.ends:
    text = text.removesuffix(end)
  return Rendered(text)


# --- OpenRLHF -------------------------------------------------------------


def _parse_query(content: Any, served: Served) -> http.Texts:
  """`query` is prompt and response; `prompts` tells where it is to be cut."""
  content = _checked(content, "query")
  served.column(content)
  queries = _texts("query", content.get("query"))
  size = len(queries)
  prompts = content.get("prompts")
  prompts = [""] * size if prompts is None else _texts("prompts", prompts)
  labels = content.get("labels")
  if labels is not None and not isinstance(labels, list):
    raise ValueError(f"labels must be a list, got {kinds.kind(labels)}")
  for name, values in (("prompts", prompts), ("labels", labels)):
    if values is not None and len(values) != size:
      raise ValueError(
        f"{name} must have one for each of {size} queries, got {len(values)}"
      )
  # A prompt that the trainer has cut is found in no query.
  starts = [
    prompt if query.startswith(prompt) else ""
    for prompt, query in zip(prompts, queries, strict=True)
  ]
  responses = [
    _rendered(query[len(start) :], served)
    for start, query in zip(starts, queries, strict=True)
  ]
  columns = {} if labels is None else {"labels": labels}
  return http.Texts(list(starts), list(responses), columns)


def _answer_query(
  content: Any, reply: http.Reply, served: Served
) -> dict[str, Any]:
  table = reply.rewards.astype(np.float64)
  rewards = table[:, served.column(content)].tolist()
  several = served.names if len(served.names) > 1 else ()
  return {
    "rewards": rewards,
    "scores": rewards,
    "extra_logs": {
      f"reward_{name}": table[:, k].tolist() for k, name in enumerate(several)
    },
  }


# --- vLLM and SGLang ------------------------------------------------------


def _parse_input(content: Any, served: Served) -> http.Texts:
  """`input` is a rendered text or several, `messages` one conversation."""
  content = _checked(content, "input", "messages")
  for name in ("use_activation", "activation", "softmax", "normalize"):
    if content.get(name):
      raise ValueError(
        f"{name} must be false: rewards are given as they are, on no scale of "
        "probabilities"
      )
  _packer(content)
  if content.get("messages") is not None:
    turns = content["messages"]
    if not isinstance(turns, list) or not turns:
      raise ValueError(f"messages must be a list, got {kinds.kind(turns)}")
    prompt, response = http.parse_text(0, turns[:-1], turns[-1:])
    return http.Texts([prompt], [response], {})
  given = content.get("input")
  texts = _texts("input", [given] if isinstance(given, str) else given)
  return http.Texts(
    [""] * len(texts), [_rendered(text, served) for text in texts], {}
  )


def _parse_input_of_one(content: Any, served: Served) -> http.Texts:
  texts = _parse_input(content, served)
  served.column(content)
  return texts


def _listed(content: Any, served: Served, data: list[Any]) -> dict[str, Any]:
  return {
    "id": uuid.uuid4().hex,
    "object": "list",
    "created": int(time.time()),
    "model": content.get("model") or served.model,
    "data": data,
    "usage": None,  # a source need not have tokens
  }


def _answer_classify(
  content: Any, reply: http.Reply, served: Served
) -> dict[str, Any]:
  column = served.column(content)
  data = [
    {
      "index": index,
      "label": served.names[column],
      "probs": [float(row[column])],
      "num_classes": 1,
    }
    for index, row in enumerate(reply.rewards)
  ]
  return _listed(content, served, data)


def _answer_pooling(
  content: Any, reply: http.Reply, served: Served
) -> dict[str, Any]:
  """All outputs, as a model with several labels gives them."""
  pack = _packer(content)
  data = [
    {"index": index, "object": "pooling", "data": pack(row)}
    for index, row in enumerate(reply.rewards)
  ]
  return _listed(content, served, data)


def _answer_embeddings(
  content: Any, reply: http.Reply, served: Served
) -> dict[str, Any]:
  pack, column = _packer(content), served.column(content)
  data = [
    {"index": i, "object": "embedding", "embedding": pack(row[[column]])}
    for i, row in enumerate(reply.rewards)
  ]
  return _listed(content, served, data)


def _packer(content: Mapping[str, Any]) -> Callable[[np.ndarray], Any]:
  """Numbers in the `encoding_format` that a request asks for."""
  form = content.get("encoding_format") or "float"
  if form == "base64":
    return lambda row: base64.b64encode(row.astype("<f4").tobytes()).decode()
  if form != "float":
    raise ValueError(f"encoding_format must be float or base64, got {form!r}")
  return lambda row: row.astype(np.float64).tolist()


def _texts(name: str, values: Any) -> Sequence[str]:
  if not isinstance(values, list):
    raise ValueError(
      f"{name} must be a list of texts, got {kinds.kind(values)}"
    )
  return [kinds.string(f"{name}[{i}]", text) for i, text in enumerate(values)]


PROTOCOLS = (
  Protocol(
    f"/v1{http.PATH}",
    lambda content, served: http.parse_request(content),
    lambda content, reply, served: reply.to_json(),
  ),
  Protocol("/get_reward", _parse_query, _answer_query),
  Protocol("/classify", _parse_input_of_one, _answer_classify),
  Protocol("/pooling", _parse_input, _answer_pooling),
  Protocol("/v1/embeddings", _parse_input_of_one, _answer_embeddings),
)
