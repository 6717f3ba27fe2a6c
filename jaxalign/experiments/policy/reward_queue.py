"""Reward queue: requests of many clients as batches of one reward source."""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.data.records.chat import Text
from jaxalign.runtime.reward_sources.base import Columns, Prompt

log = logging.getLogger("jaxalign")

# `(prompts, responses, columns) -> [B, ...]`, such as a reward source.
Score = Callable[[Sequence[Prompt], Sequence[Text], Columns], np.ndarray]


class QueueFullError(Exception):
  """More texts or bytes wait than may, or the queue has been closed."""


@dataclasses.dataclass(eq=False)
class _Waiting:
  """A request, where its rewards are awaited, and those it has so far."""

  prompts: Sequence[Prompt]
  responses: Sequence[Text]
  columns: Columns
  rewards: asyncio.Future[np.ndarray]
  found: list[np.ndarray] = dataclasses.field(default_factory=list)
  done: int = 0

  def next_part(
    self, size: int
  ) -> tuple[Sequence[Prompt], Sequence[Text], Columns]:
    """Up to `size` texts that have no reward yet, with their columns."""
    part = slice(self.done, self.done + size)
    columns = {name: values[part] for name, values in self.columns.items()}
    return self.prompts[part], self.responses[part], columns


class RewardQueue:
  """Puts requests together into batches, in the order they came.

  The source runs in a thread, so the server answers while it works; what
  arrives meanwhile is the next batch. A request of more texts than a batch is
  scored batch by batch, and no further once its client has gone.

  Attributes:
    waiting: texts that are queued or being scored.
    waiting_bytes: of request bodies that are being read or whose texts wait.
    scoring: whether the source is at work.
    counts: `texts`, `requests`, `batches`, `refused`, `failed` and `gone`, the
      requests whose client left before the end, so far.
  """

  def __init__(
    self,
    source: Score,
    *,
    batch_size: int,
    max_waiting: int,
    max_waiting_bytes: int,
    linger_s: float,
  ) -> None:
    """Makes an idle queue; `run` works it off.

    Args:
      source: what scores.
      batch_size: texts that are given to the source at a time.
      max_waiting: texts that may wait or be scored at a time.
      max_waiting_bytes: of the bodies of requests, at a time.
      linger_s: how long the first request of a batch waits for others.
    """
    self.waiting = self.waiting_bytes = 0
    self.scoring = False
    self.counts: collections.Counter[str] = collections.Counter(
      texts=0, requests=0, batches=0, refused=0, failed=0, gone=0
    )
    self._source = source
    self._batch_size = batch_size
    self._max_waiting = max_waiting
    self._max_waiting_bytes = max_waiting_bytes
    self._linger_s = linger_s
    self._queue: collections.deque[_Waiting] = collections.deque()
    self._changed = asyncio.Event()
    self._closed = False

  @property
  def has_room(self) -> bool:
    """Whether one more text would be taken."""
    full = self.waiting >= self._max_waiting
    return not (self._closed or full)

  def take_bytes(self, number: int) -> None:
    """Counts bytes of a body in, or out where `number` is negative.

    Raises:
      QueueFullError: there is no room; ask later.
    """
    total = self.waiting_bytes + number
    if number > 0 and total > self._max_waiting_bytes:
      self.counts["refused"] += 1
      raise QueueFullError(
        f"{self.waiting_bytes} bytes wait, {number} more exceed "
        f"serve.max_waiting_bytes = {self._max_waiting_bytes}"
      )
    self.waiting_bytes = total

  async def score(
    self,
    prompts: Sequence[Prompt],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """What the source says of one request; cancelled, it is scored no further.

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
    self._queue.append(_Waiting(prompts, responses, columns or {}, future))
    self._changed.set()
    try:
      return await future
    except asyncio.CancelledError:
      self.counts["gone"] += 1
      raise
    finally:
      self.waiting -= len(responses)

  def close(self) -> None:
    """Takes no more requests; `run` ends when those it has are answered."""
    self._closed = True
    self._changed.set()

  async def run(self) -> None:
    """Works until the queue is closed and empty."""
    while True:
      await self._changed.wait()
      self._forget_gone()
      if not self._queue:
        if self._closed:
          return
        self._changed.clear()
        continue
      await self._linger()
      batch = self._take()
      if batch:
        self.scoring = True
        results = await _in_thread(lambda batch=batch: self._scored(batch))
        self.scoring = False
        self._hand_out(batch, results)

  def _forget_gone(self) -> None:
    """Drops requests whose client has left."""
    left = [one for one in self._queue if not one.rewards.cancelled()]
    if len(left) < len(self._queue):
      self._queue = collections.deque(left)

  def _queued(self) -> int:
    return sum(len(one.responses) - one.done for one in self._queue)

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
    """The next requests: those that fit whole, or the first one's next part."""
    self._forget_gone()
    taken: list[_Waiting] = []
    size = 0
    while self._queue:
      size += len(self._queue[0].responses) - self._queue[0].done
      if taken and size > self._batch_size:
        break
      if taken and {*taken[0].columns} != {*self._queue[0].columns}:
        break  # a function would be called with columns that some have not
      taken.append(self._queue.popleft())
    return taken

  def _hand_out(
    self,
    batch: Sequence[_Waiting],
    results: Sequence[np.ndarray | Exception],
  ) -> None:
    """Gives each request its result, or a place at the head for the rest."""
    for one, result in zip(batch, results, strict=True):
      if one.rewards.cancelled():
        continue  # the client has gone
      if isinstance(result, Exception):
        one.rewards.set_exception(result)
        continue
      one.found.append(result)
      one.done += len(result)
      if one.done < len(one.responses):
        self._queue.appendleft(one)
      else:
        self.counts["requests"] += 1
        one.rewards.set_result(np.concatenate(one.found))

  def _scored(self, batch: Sequence[_Waiting]) -> list[np.ndarray | Exception]:
    """Rewards of each request's part, or why there are none; in the thread."""
    parts = [one.next_part(self._batch_size) for one in batch]
    prompts = [prompt for prompts, _, _ in parts for prompt in prompts]
    responses = [text for _, texts, _ in parts for text in texts]
    columns = {
      name: [value for _, _, each in parts for value in each[name]]
      for name in batch[0].columns
    }
    self.counts["batches"] += 1
    try:
      rewards = self._source(prompts, responses, columns)
    except Exception as error:
      if len(batch) > 1:
        # One of them may be to blame: the others shall not suffer.
        return [self._scored([request])[0] for request in batch]
      log.exception("no rewards for a request of %d texts", len(responses))
      self.counts["failed"] += 1
      return [error]
    self.counts["texts"] += len(responses)
    ends = np.cumsum([len(texts) for _, texts, _ in parts])
    return list(np.split(rewards, ends[:-1]))


async def _in_thread(
  work: Callable[[], list[np.ndarray | Exception]],
) -> list[np.ndarray | Exception]:
  """What `work` returns, from a thread that does not hold up the process's end.

  The threads of an executor would: Python waits for them.
  """
  loop = asyncio.get_running_loop()
  finished = loop.create_future()

  def report(results: list[np.ndarray | Exception]) -> None:
    if not finished.cancelled():
      finished.set_result(results)

  def run() -> None:
    results = work()
    with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
      loop.call_soon_threadsafe(report, results)

  threading.Thread(target=run, name="rewards", daemon=True).start()
  return await finished
