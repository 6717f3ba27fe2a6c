"""Requests of many clients as batches of one reward source, within bounds."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from jaxalign.runtime.reward_sources import Prompt, RewardSource

log = logging.getLogger("jaxalign")


class QueueFullError(Exception):
  """More texts wait than may, or the queue has been closed."""


@dataclasses.dataclass(eq=False)
class _Waiting:
  """A request and where its rewards are awaited."""

  prompts: Sequence[Prompt]
  responses: Sequence[str]
  rewards: asyncio.Future[np.ndarray]


class RewardQueue:
  """Puts requests together into batches, in the order they came.

  The source runs in one thread of its own, so the server answers while it
  works; what arrives meanwhile is the next batch.

  Attributes:
    waiting: texts that are queued or being scored.
    counts: `texts`, `requests`, `batches`, `refused` and `failed` so far.
  """

  def __init__(
    self,
    source: RewardSource,
    *,
    batch_size: int,
    max_waiting: int,
    linger_s: float,
  ) -> None:
    """Makes an idle queue; `run` works it off.

    Args:
      source: what scores.
      batch_size: texts at which a batch is not filled up any further.
      max_waiting: texts that may wait or be scored at a time.
      linger_s: how long the first request of a batch waits for company.
    """
    self.waiting = 0
    self.counts: collections.Counter[str] = collections.Counter(
      texts=0, requests=0, batches=0, refused=0, failed=0
    )
    self._source = source
    self._batch_size = batch_size
    self._max_waiting = max_waiting
    self._linger_s = linger_s
    self._queue: collections.deque[_Waiting] = collections.deque()
    self._changed = asyncio.Event()
    self._closed = False

  async def score(
    self, prompts: Sequence[Prompt], responses: Sequence[str]
  ) -> np.ndarray:
    """Rewards of one request, [B, K].

    Raises:
      QueueFullError: there is no room; ask later.
      Exception: whatever the source raises about this very request.
    """
    if self._closed:
      raise QueueFullError("the server is shutting down")
    if self.waiting + len(responses) > self._max_waiting:
      self.counts["refused"] += 1
      raise QueueFullError(
        f"{self.waiting} texts wait, {len(responses)} more exceed "
        f"serve.max_waiting = {self._max_waiting}"
      )
    self.waiting += len(responses)
    future = asyncio.get_running_loop().create_future()
    self._queue.append(_Waiting(prompts, responses, future))
    self._changed.set()
    try:
      return await future
    finally:
      self.waiting -= len(responses)

  def close(self) -> None:
    """Takes no more requests; `run` ends when those it has are answered."""
    self._closed = True
    self._changed.set()

  async def run(self) -> None:
    """Works until the queue is closed and empty."""
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1, "rewards") as thread:
      while True:
        await self._changed.wait()
        if not self._queue:
          if self._closed:
            return
          self._changed.clear()
          continue
        await self._linger()
        batch = self._take()
        results = await loop.run_in_executor(thread, self._scored, batch)
        for request, result in zip(batch, results, strict=True):
          if request.rewards.cancelled():
            continue  # the client has gone
          if isinstance(result, Exception):
            request.rewards.set_exception(result)
          else:
            request.rewards.set_result(result)

  def _queued(self) -> int:
    return sum(len(request.responses) for request in self._queue)

  async def _linger(self) -> None:
    """Waits until a batch is full, but no longer than `linger_s`."""
    try:
      async with asyncio.timeout(self._linger_s):
        while self._queued() < self._batch_size and not self._closed:
          self._changed.clear()
          await self._changed.wait()
    except TimeoutError:
      self._changed.set()

  def _take(self) -> list[_Waiting]:
    """The next requests, one at least and no more than fill a batch."""
    taken = [self._queue.popleft()]
    size = len(taken[0].responses)
    while self._queue:
      size += len(self._queue[0].responses)
      if size > self._batch_size:
        break
      taken.append(self._queue.popleft())
    return taken

  def _scored(self, batch: Sequence[_Waiting]) -> list[np.ndarray | Exception]:
    """Rewards of each request, or why it has none; runs in the thread."""
    prompts = [prompt for request in batch for prompt in request.prompts]
    responses = [text for request in batch for text in request.responses]
    self.counts["batches"] += 1
    try:
      rewards = self._source(prompts, responses)
    except Exception as error:
      if len(batch) > 1:
        # One of them may be to blame: the others shall not suffer.
        return [self._scored([request])[0] for request in batch]
      log.exception("no rewards for a request of %d texts", len(responses))
      self.counts["failed"] += 1
      return [error]
    self.counts["requests"] += len(batch)
    self.counts["texts"] += len(responses)
    ends = np.cumsum([len(request.responses) for request in batch])
    return list(np.split(rewards, ends[:-1]))
