"""Prometheus metrics of the reward server: counters, gauges and a histogram."""

import collections
from collections.abc import Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0)

_HELP = {
  "texts": "Texts that were scored.",
  "requests": "Requests that were scored to their end.",
  "batches": "Calls of the reward source.",
  "refused": "Requests sent away because too much waited.",
  "failed": "Requests that the reward source failed on.",
  "gone": "Requests whose client left before the end.",
  "waiting_texts": "Texts that wait or are being scored.",
  "waiting_texts_limit": "serve.max_waiting.",
  "waiting_bytes": "Bytes of the bodies of requests under way.",
  "waiting_bytes_limit": "serve.max_waiting_bytes.",
  "ready": "Whether requests are taken.",
}


class Observed:
  """Answers of a server, counted by path, status and duration."""

  def __init__(self) -> None:
    self._answers: collections.Counter[tuple[str, int]] = collections.Counter()
    self._within: dict[str, list[int]] = {}
    self._seconds: dict[str, float] = collections.defaultdict(float)

  def add(self, path: str, status: int, seconds: float) -> None:
    """Counts one answer.

    Args:
      path: of the request, one that the server has.
      status: of the answer.
      seconds: from the first byte of the request to the last of the answer.
    """
    self._answers[path, status] += 1
    self._seconds[path] += seconds
    within = self._within.setdefault(path, [0] * (len(BOUNDS_S) + 1))
    for place, bound in enumerate((*BOUNDS_S, float("inf"))):
      within[place] += seconds <= bound

  def exposed(
    self, counts: Mapping[str, int], gauges: Mapping[str, int]
  ) -> str:
    """Everything in the text format of Prometheus.

    Args:
      counts: of the reward queue, which only grow.
      gauges: what is now, by name.

    Returns:
      The text, one line per number.
    """
    lines: list[str] = []
    for name, number in counts.items():
      lines += _single(f"jaxalign_{name}_total", "counter", _HELP[name], number)
    for name, number in gauges.items():
      lines += _single(f"jaxalign_{name}", "gauge", _HELP[name], number)
    lines += self._by_path()
    return "\n".join(lines) + "\n"

  def _by_path(self) -> Iterator[str]:
    name = "jaxalign_http_answers_total"
    yield from _head(name, "counter", "Answers by path and status.")
    for (path, status), number in sorted(self._answers.items()):
      yield f'{name}{{path="{path}",status="{status}"}} {number}'
    name = "jaxalign_http_seconds"
    yield from _head(name, "histogram", "Time from a request to its answer.")
    for path, within in sorted(self._within.items()):
      for bound, number in zip((*BOUNDS_S, "+Inf"), within, strict=True):
        yield f'{name}_bucket{{path="{path}",le="{bound}"}} {number}'
      yield f'{name}_sum{{path="{path}"}} {self._seconds[path]:.6f}'
      yield f'{name}_count{{path="{path}"}} {within[-1]}'


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
  return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _single(name: str, kind: str, text: str, number: int) -> Iterator[str]:
  yield from _head(name, kind, text)
  yield (
    f"{name} {number:g}" if isinstance(number, float) else f"{name} {number}"
  )
