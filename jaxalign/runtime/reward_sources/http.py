"""Rewards over HTTP: the request, the response, and a client source.

  POST URL/rewards  {"prompts": [...], "responses": [...]}
  200               {"names": [K], "rewards": [B][K], "mixture_weights": [K]}

A prompt is text or a list of {role, content}, and so is a response to the
latter; `mixture_weights` may be null. `columns` may be there too, {name: [B]},
for a reward function that asks for them. No text at all gets the names with no
rewards, which is how a client begins.

A request may hold `person`, pairs of one person as a list of {prompt, chosen,
rejected}. The reply then has `person`: {"weights": [K], "rewards": [B]}, that
person's mixture of the outputs; of personal rewards it has `place` too, [R],
where the person is. Nothing of it is kept.

The reply of a source that predicts labels has `labels`: {"names": [d],
"values": [d], "probs": [B][d]}, the shares of each label.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxalign.data.llm_labels import client
from jaxalign.data.llm_labels.prompts import ConnectionConfig, check_url
from jaxalign.data.records import chat
from jaxalign.data.records import columns as kinds
from jaxalign.data.records.chat import Text
from jaxalign.data.tokenization import turns
from jaxalign.runtime.reward_sources import base
from jaxalign.runtime.reward_sources import labels as label_shares
from jaxalign.runtime.reward_sources.base import Prompt, RewardError

PATH = "/rewards"
PERSON = "person"
PAIR = ("prompt", "chosen", "rejected")


class Reply(NamedTuple):
  """What a server says of B texts.

  Attributes:
    names: of the K outputs.
    rewards: finite float32, [B, K].
    mixture_weights: share of each output's group, [K], or None.
    person: weights of the person asked for, [K], or None.
    labels: that the source predicts, or None.
    label_probs: shares of these, finite float32 [B, d], or None.
    place: numbers of the person asked for, [R], or None.
    factors: what one unit of each adds to the reward, [B, R], or None.
  """

  names: tuple[str, ...]
  rewards: np.ndarray
  mixture_weights: tuple[float, ...] | None
  person: np.ndarray | None = None
  labels: label_shares.Labels | None = None
  label_probs: np.ndarray | None = None
  place: np.ndarray | None = None
  factors: np.ndarray | None = None

  def to_json(self) -> dict[str, Any]:
    """The reply as JSON values."""
    weights = self.mixture_weights
    told: dict[str, Any] = {}
    if self.labels is not None and self.label_probs is not None:
      told["labels"] = {
        "names": list(self.labels.names),
        "values": list(self.labels.values),
        "probs": self.label_probs.astype(np.float64).tolist(),
      }
    if self.person is not None:
      mixed = self.rewards.astype(np.float64) @ self.person
      told["person"] = {"weights": self.person.tolist()}
      if self.place is not None and self.factors is not None:
        mixed = mixed + self.factors.astype(np.float64) @ self.place
        told["person"]["place"] = self.place.tolist()
      told["person"]["rewards"] = mixed.tolist()
    return told | {
      "names": list(self.names),
      # float64 holds every float32, so that nothing is rounded on the way.
      "rewards": self.rewards.astype(np.float64).tolist(),
      "mixture_weights": None if weights is None else list(weights),
    }


class Texts(NamedTuple):
  """What is to be scored.

  Attributes:
    prompts: B of them.
    responses: B of them.
    columns: what else is known of each, by name.
  """

  prompts: list[Prompt]
  responses: list[Text]
  columns: dict[str, list[Any]]


def request(
  prompts: Sequence[Prompt],
  responses: Sequence[Text],
  columns: base.Columns | None = None,
) -> dict[str, Any]:
  """The JSON that asks for the rewards of B responses."""
  asked: dict[str, Any] = {
    "prompts": [_to_json(prompt) for prompt in prompts],
    "responses": [_to_json(response) for response in responses],
  }
  if columns:
    asked["columns"] = {name: [*values] for name, values in columns.items()}
  return asked


def _to_json(text: Text) -> Any:
  if isinstance(text, str):
    return str(text)
  return [turns.message(turn) for turn in text]


def parse_request(content: Any) -> Texts:
  """Prompts, responses and columns from the JSON of a request.

  Args:
    content: what was posted.

  Returns:
    B of each.

  Raises:
    ValueError: what was got and what is allowed; of a text, its number.
  """
  fields = ("prompts", "responses")
  allowed = (*fields, "columns", PERSON)
  if not isinstance(content, dict):
    raise ValueError(
      f"the body must be an object with {' and '.join(fields)}, got "
      f"{kinds.kind(content)}"
    )
  for name in content:
    if name not in allowed:
      raise ValueError(f"unknown key {name!r}; allowed: {', '.join(allowed)}")
  for name in fields:
    if not isinstance(content.get(name), list):
      raise ValueError(
        f"{name} must be a list, got {kinds.kind(content.get(name))}"
      )
  columns = content.get("columns")
  if columns is None:
    columns = {}
  if not isinstance(columns, dict) or not all(
    isinstance(values, list) for values in columns.values()
  ):
    raise ValueError(
      f"columns must be an object of lists, got {kinds.kind(columns)}"
    )
  base.check_texts(content["prompts"], content["responses"], columns)
  pairs = [
    parse_text(number, prompt, response)
    for number, (prompt, response) in enumerate(
      zip(content["prompts"], content["responses"], strict=True)
    )
  ]
  return Texts(
    [prompt for prompt, _ in pairs],
    [response for _, response in pairs],
    columns,
  )


def parse_text(number: int, prompt: Any, response: Any) -> tuple[Prompt, Text]:
  """A prompt and its response from their JSON.

  Args:
    number: of the text, for errors.
    prompt: text or chat turns.
    response: text, or turns that continue the chat.

  Returns:
    Both; a response of one turn as its text.

  Raises:
    ValueError: what was got and what is allowed.
  """
  try:
    if isinstance(response, list):
      if not isinstance(prompt, list):
        raise ValueError(
          "a response of chat turns goes with a prompt of chat turns, got "
          f"{kinds.kind(prompt)}"
        )
    else:
      kinds.string("response", response)
    read, (said,) = chat.parse_texts(
      {"prompt": prompt, "responses": [response]}
    )
  except ValueError as error:
    raise ValueError(f"text {number}: {error}") from None
  return read, said


def parse_person(content: Any) -> list[tuple[Prompt, Text]]:
  """The texts of a person's pairs, the preferred one of each pair first.

  Args:
    content: of a request, which `parse_request` has let through.

  Returns:
    Two prompts with a response each per pair; none without `person`.

  Raises:
    ValueError: what was got and what is allowed; of a pair, its number.
  """
  pairs = content.get(PERSON)
  if pairs is None:
    return []
  if content.get("columns"):
    raise ValueError(f"{PERSON} and columns do not go together")
  if not isinstance(pairs, list):
    raise ValueError(f"{PERSON} must be a list, got {kinds.kind(pairs)}")
  found = []
  for number, pair in enumerate(pairs):
    if not isinstance(pair, dict) or {*pair} != {*PAIR}:
      raise ValueError(
        f"pair {number} of {PERSON} must be an object with {', '.join(PAIR)}"
      )
    try:
      for side in PAIR[1:]:
        found.append(parse_text(number, pair["prompt"], pair[side]))
    except ValueError as error:
      raise ValueError(f"{PERSON}: {error}") from None
  return found


def parse_reply(content: Any, *, num_texts: int) -> Reply:
  """A reply from its JSON.

  Args:
    content: what came back.
    num_texts: B.

  Returns:
    The reply.

  Raises:
    ValueError, LookupError, TypeError, OverflowError: it is no reply for B
      texts.
  """
  names = content["names"]
  if not isinstance(names, list) or not names:
    raise ValueError(f"names must be a list, got {kinds.kind(names)}")
  if not all(isinstance(name, str) for name in names):
    raise ValueError("names must be texts")
  names = tuple(names)
  rewards = np.asarray(content["rewards"], np.float32)
  if not num_texts:
    rewards = rewards.reshape(0, len(names))
  if rewards.shape != (num_texts, len(names)) or not np.all(
    np.isfinite(rewards)
  ):
    raise ValueError(
      f"rewards must be finite, [{num_texts}, {len(names)}], got shape "
      f"{rewards.shape}"
    )
  weights = content["mixture_weights"]
  if weights is not None:
    weights = tuple(float(share) for share in weights)
    if len(weights) != len(names) or not np.all(np.isfinite(weights)):
      raise ValueError(
        f"mixture_weights must be {len(names)} finite shares, got {weights}"
      )
  labels, probs = _parse_labels(content.get("labels"), num_texts)
  return Reply(names, rewards, weights, None, labels, probs)


def _parse_labels(
  content: Any, num_texts: int
) -> tuple[label_shares.Labels | None, np.ndarray | None]:
  """Labels and shares [B, d] from their JSON, None of both without any."""
  if content is None:
    return None, None
  names, values = content["names"], content["values"]
  if not isinstance(names, list) or not all(
    isinstance(name, str) for name in names
  ):
    raise ValueError("names of labels must be a list of texts")
  worth = tuple(float(value) for value in values)
  if len(worth) != len(names) or not np.all(np.isfinite(worth)):
    raise ValueError(f"values must be {len(names)} finite numbers, got {worth}")
  probs = np.asarray(content["probs"], np.float32)
  if not num_texts:
    probs = probs.reshape(0, len(names))
  return label_shares.Labels(tuple(names), worth), label_shares.checked_probs(
    probs, num_texts=num_texts, names=names
  )


class EndpointSource:
  """A server of rewards, such as the `serve` stage of another machine.

  Attributes:
    names: of the server's outputs.
    mixture_weights: share of each output's group, None where unknown.
    units: None, as a server does not tell them.
    labels: that the server's source predicts shares of, None if none.
  """

  units: tuple[float, ...] | None = None

  def __init__(
    self, url: str, connection: ConnectionConfig, *, batch_size: int
  ) -> None:
    """Asks the server for its names.

    Args:
      url: address up to and with the version, http://localhost:8000/v1.
      connection: rate, retries and timeouts of requests.
      batch_size: texts per request.

    Raises:
      RewardError: no server answers there, or it does not speak of rewards.
      ValueError: `url` is no address, batch_size below 1, or a missing key.
    """
    check_url(url)
    if batch_size < 1:
      raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    self._url = f"{url.rstrip('/')}{PATH}"
    self._connection = connection
    self._batch_size = batch_size
    self._rounds = 0
    # What was answered of a call that then failed, so that the call made again
    # asks only for the rest.
    self._answered: dict[str, Reply] = {}
    (first,) = self._ask([request([], [])])
    self.names = first.names
    self.mixture_weights = first.mixture_weights
    self.labels = first.labels

  def __call__(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K]; see `RewardSource`."""
    return self.scored(prompts, responses, columns).rewards

  def label_probs(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> np.ndarray:
    """Shares of the labels of B responses, float32 [B, d]."""
    return label_shares.shares(self.scored(prompts, responses, columns))

  def scored(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> label_shares.Scored:
    """Rewards and label shares of B responses, asked for once."""
    base.check_texts(prompts, responses, columns)
    number = len(self.names)
    labelled = 0 if self.labels is None else len(self.labels.names)
    shape = (len(responses), number + labelled)
    apart = lambda both: label_shares.Scored(
      both[:, :number], both[:, number:] if labelled else None
    )
    if not responses:
      return apart(np.zeros(shape, np.float32))

    def ask() -> np.ndarray:
      starts = range(0, len(responses), self._batch_size)
      slices = [slice(start, start + self._batch_size) for start in starts]
      replies = self._ask(
        [
          request(
            prompts[part],
            responses[part],
            {name: values[part] for name, values in (columns or {}).items()},
          )
          for part in slices
        ]
      )
      for reply in replies:
        if (reply.names, reply.labels) != (self.names, self.labels):
          raise RewardError(
            f"{self._url} began with the outputs {', '.join(self.names)} and "
            f"now has {', '.join(reply.names)}: another model is served there"
          )
      parts = [
        reply.rewards
        if reply.label_probs is None
        else np.concatenate([reply.rewards, reply.label_probs], axis=1)
        for reply in replies
      ]
      return np.concatenate(parts)

    return apart(base.from_main(ask, shape))

  def _ask(self, bodies: Sequence[dict[str, Any]]) -> list[Reply]:
    """The replies to several requests, in order."""
    keys = [_key(body) for body in bodies]
    wanted = {
      key: body
      for key, body in zip(keys, bodies, strict=True)
      if key not in self._answered
    }
    self._rounds += 1
    try:
      found, counts = client.post_all(
        self._url,
        self._connection,
        wanted,
        parse=lambda key, content: parse_reply(
          content, num_texts=len(wanted[key]["responses"])
        ),
        remember=self._answered.__setitem__,
        seed=self._rounds,
      )
    except client.EndpointError as error:
      raise RewardError(str(error)) from None
    lost = sum(reply is None for reply in found.values())
    if lost:
      raise RewardError(
        f"{self._url} did not answer {lost} of {len(wanted)} requests after "
        f"{self._connection.max_attempts} attempts each: {counts}"
      )
    replies = [self._answered[key] for key in keys]
    self._answered.clear()
    return replies


def _key(body: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(body).encode()).hexdigest()
