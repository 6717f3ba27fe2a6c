"""Progress bars: on a terminal a bar, elsewhere a line from time to time."""

import collections
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import rich.console
import rich.progress
import rich.table

from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.profiling import compiled

T = TypeVar("T")

_RATE_WINDOW_S = 60.0
_MARK_EVERY_S = 0.2
_MEMORY_EVERY_S = 2.0


# The bar in view, if any: a pass within a run becomes a line of its display.
_in_view: list[rich.progress.Progress] = []


class _Mark(NamedTuple):
  """Where the run was at one moment."""

  seconds: float
  step: int
  tokens: int


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}"


def _gib(size: int) -> str:
  return f"{size / 2**30:.2f} GiB"


def watched(items: Iterable[T], *, total: int | None, what: str) -> Iterator[T]:
  """The same items, with a bar of `counted` for how many were dealt with.

  Args:
    items: of a pass over data.
    total: how many there are, None if unknown.
    what: what is done, such as "scoring pairs".

  Yields:
    Each item.
  """
  with counted(total=total, what=what) as done:
    for item in items:
      yield item
      done()


@contextlib.contextmanager
def counted(*, total: int | None, what: str) -> Iterator[Callable[[], None]]:
  """A bar for a pass over data, on the main process.

  Within a run whose bar is in view it is a line below that, gone at the end; a
  pass that is over soon leaves no line where there is no terminal.

  Args:
    total: how many items there are, None if unknown.
    what: what is done, such as "asking the judge".

  Yields:
    What is to be called after each item.
  """
  if not multihost.is_main():
    yield lambda: None
    return
  shown = Progress(
    start_step=0, num_steps=total, description=what, lasting=False
  )
  shown.start()
  numbers = itertools.count(1)
  try:
    yield lambda: shown.advance(next(numbers))
  finally:
    shown.stop()


class Progress:
  """Steps done, time left, tokens/s, loss and memory of a run."""

  def __init__(
    self,
    *,
    start_step: int,
    num_steps: int | None,
    description: str = "train",
    show: bool | None = None,
    log_every_s: float = 30.0,
    lasting: bool = True,
    console: rich.console.Console | None = None,
  ):
    """Describes the display; `start` begins it.

    Args:
      start_step: steps done before.
      num_steps: steps in all, None if unknown.
      description: what the run is doing.
      show: True draws a bar, False prints plain lines, None draws the bar if
        the console is a terminal.
      log_every_s: seconds between plain lines.
      lasting: whether this is the run itself, whose last state and memory are
        shown, and not a pass that leaves no trace.
      console: where to; standard error by default.
    """
    self._console = console or rich.console.Console(stderr=True)
    self._num_steps = num_steps
    self._step = start_step
    self._log_every_s = log_every_s
    self._description = description
    self._lasting = lasting
    self._loss: float | None = None
    self._tokens: int | None = None
    self._marks: collections.deque[_Mark] = collections.deque()
    self._memory = ""
    self._memory_read = -float("inf")
    self._bar: rich.progress.Progress | None = None
    self._within = False
    self._show = self._console.is_terminal if show is None else show

  def _view(self) -> rich.progress.Progress:
    """The display: one for all that goes on at a time."""
    self._within = bool(_in_view)
    if self._within:
      return _in_view[0]
    return rich.progress.Progress(
      rich.progress.TextColumn("{task.description}", markup=False),
      rich.progress.BarColumn(bar_width=20),
      # On a narrow terminal the bar shrinks and the last column wraps.
      rich.progress.MofNCompleteColumn(
        table_column=rich.table.Column(no_wrap=True)
      ),
      rich.progress.TextColumn(
        "{task.fields[status]}",
        markup=False,
        table_column=rich.table.Column(),
      ),
      console=self._console,
      refresh_per_second=2,
      transient=not self._lasting,
    )

  def start(self) -> None:
    """Begins to measure and shows the bar."""
    self._began = self._logged = time.monotonic()
    self._printed = False
    if self._show:
      self._bar = self._view()
      self._task = self._bar.add_task(
        self._description,
        total=self._num_steps,
        completed=self._step,
        status="starting",
      )
      if not self._within:
        _in_view.append(self._bar)
        self._bar.start()

  def stop(self) -> None:
    """Takes the display down; the bar of a run stays in view."""
    if self._bar is None:
      if self._lasting or self._printed:
        self._print()
      return
    if self._within:
      self._bar.remove_task(self._task)
      return
    self._bar.update(self._task, status=self._status())
    self._bar.stop()
    _in_view.remove(self._bar)

  def advance(
    self,
    step: int,
    *,
    description: str | None = None,
    tokens: int | None = None,
    loss: float | None = None,
  ) -> None:
    """Takes note of one or more finished steps.

    Time and rates are counted from the first call on: what came before
    compiled.

    Args:
      step: number of steps done.
      description: what the run is doing, kept until given again.
      tokens: tokens since the last call.
      loss: newest loss, kept until given again.
    """
    now = time.monotonic()
    self._step = step
    if description is not None:
      self._description = description
    if loss is not None:
      self._loss = float(loss)
    if tokens is not None:
      self._tokens = (self._tokens or 0) + int(tokens)
    if len(self._marks) > 1 and now - self._marks[-2].seconds < _MARK_EVERY_S:
      self._marks.pop()  # fast steps need not be kept one by one
    self._marks.append(_Mark(now, step, self._tokens or 0))
    # The oldest mark is the newest that is at least a window old.
    while len(self._marks) > 2 and now - self._marks[1].seconds > (
      _RATE_WINDOW_S
    ):
      self._marks.popleft()
    if self._bar is not None:
      self._bar.update(
        self._task,
        completed=step,
        description=self._description,
        status=self._status(),
      )
    elif now - self._logged >= self._log_every_s:
      self._logged = now
      self._print()

  def rates(self) -> tuple[float | None, float | None]:
    """Steps and tokens per second over the last minute, None if unknown."""
    if not self._marks:
      return None, None
    first, last = self._marks[0], self._marks[-1]
    seconds = last.seconds - first.seconds
    if seconds <= 0 or last.step <= first.step:
      return None, None
    steps = (last.step - first.step) / seconds
    if self._tokens is None:
      return steps, None
    return steps, (last.tokens - first.tokens) / seconds

  def speed(self) -> dict[str, float]:
    """What is known of rates and memory, under metric names."""
    steps, tokens = self.rates()
    device = compiled.device_memory_bytes()
    values = {
      "speed/steps_per_second": steps,
      "speed/tokens_per_second": tokens,
      "speed/host_memory_bytes": compiled.host_memory_bytes(),
      "speed/device_memory_bytes": device,
    }
    return {k: float(v) for k, v in values.items() if v is not None}

  def _status(self) -> str:
    """Time left, speed, loss and memory as one line."""
    steps, tokens = self.rates()
    parts = []
    if self._step == self._num_steps:
      parts.append(f"{_duration(time.monotonic() - self._began)} in all")
    elif steps is None:
      parts.append("starting")
    elif self._num_steps is not None:
      left = (self._num_steps - self._step) / steps
      parts.append(f"{_duration(left)} left")
    if tokens is not None:
      parts.append(f"{tokens:,.0f} tokens/s")
    elif steps is not None:
      rate = f"{steps:.3g}" if steps < 100 else f"{steps:,.0f}"
      parts.append(f"{rate} steps/s" if self._lasting else f"{rate}/s")
    if self._loss is not None:
      parts.append(f"loss {self._loss:.4g}")
    if not self._lasting:
      return ", ".join(parts)
    now = time.monotonic()
    if now - self._memory_read >= _MEMORY_EVERY_S:
      self._memory_read = now
      self._memory = f"host {_gib(compiled.host_memory_bytes())}"
      device = compiled.device_memory_bytes()
      if device is not None:
        self._memory += f", device {_gib(device)}"
    return ", ".join([*parts, self._memory])

  def _print(self) -> None:
    self._printed = True
    of_all = "" if self._num_steps is None else f"/{self._num_steps}"
    line = f"{self._description} {self._step}{of_all}"
    self._console.print(
      f"{line}, {self._status()}",
      markup=False,
      highlight=False,
      soft_wrap=True,
    )
