"""Best-of-n report, and the file that keeps samples while they are made."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from jaxalign.experiments.reports import policy
from jaxalign.runtime.io import filesystem
from jaxalign.runtime.plots import html_report
from jaxalign.runtime.plots.html_report import decimal, interval

KEYS = ("value", "low", "high")


class SampleFile:
  """Rows that are appended chunk by chunk under the config that made them.

  Attributes:
    rows: what an earlier run of the same config left.
  """

  def __init__(self, path: epath.Path, config: Mapping[str, Any]):
    """Reads what is there; a half-written last line does not count.

    Args:
      path: the file.
      config: whose samples these are.

    Raises:
      ValueError: the file holds samples of another config.
    """
    header = json.dumps(config, sort_keys=True)
    self._path = path
    self.rows: list[Any] = []
    kept = [header]
    if path.exists():
      found, *lines = path.read_text().split("\n")
      if found != header:
        raise ValueError(
          f"{path} holds samples of another config; give another workdir or "
          "remove it"
        )
      for line in lines[:-1]:
        kept.append(line)
        self.rows.append(json.loads(line))
    filesystem.write_atomically(path, "".join(f"{x}\n" for x in kept).encode())

  def append(self, rows: Iterable[Any]) -> None:
    """Adds rows; they are on the disk when this returns."""
    file = filesystem.AppendedFile(self._path)
    lines = (json.dumps(row, allow_nan=False) for row in rows)
    file.write("".join(f"{line}\n" for line in lines).encode())
    file.close()


def headline(result: html_report.Result) -> str:
  """What the best of the most samples gains over a single one."""
  part, names = ("oracle", result["oracle_names"])
  if not names:
    part, names = ("proxy", result["names"])
  single, best = (
    [
      dict(zip(("value", "low", "high"), ends, strict=True))
      for ends in zip(*(result[part][k][i] for k in KEYS), strict=True)
    ]
    for i in (0, -1)
  )
  gains = ", ".join(
    f"{name} {interval(after)} against {decimal(before['value'])}"
    for name, before, after in zip(names, single, best, strict=True)
  )
  ruler = "True utility" if part == "oracle" else "Reward"
  return (
    f"{ruler} of the best of {result['sizes'][-1]} samples, against that of "
    f"{result['sizes'][0]}: {gains}."
  )


def write(
  workdir: epath.Path, result: html_report.Result, prompts: int, pick_by: str
) -> None:
  """Writes report.html of this many prompts and what the best is picked by."""
  names = [f"proxy {name}" for name in result["names"]]
  names += [f"oracle {name}" for name in result["oracle_names"]]
  rows = []
  for i, (n, kl) in enumerate(zip(result["sizes"], result["kl"], strict=True)):
    cells = [
      interval(dict(zip(KEYS, ends, strict=True)))
      for part in ("proxy", "oracle")
      for ends in zip(*(result[part][key][i] for key in KEYS), strict=True)
    ]
    rows.append([n, f"{kl:.3f}", *cells])
  column = lambda part, k: [row[k] for row in result[part]["value"]]
  picked = column("picked_by", 0)
  known = {name: k for k, name in enumerate(result["names"])}
  groups = {
    name: {
      "proxy": column("proxy", known[name]) if name in known else picked,
      "oracle": column("oracle", k),
    }
    for k, name in enumerate(result["oracle_names"])
  }
  html_report.write_report(
    workdir / html_report.NAME,
    title=f"Best of n by {pick_by}",
    headline=headline(result),
    basis=f"95 % intervals over {prompts:,} prompts. {html_report.ONE_SEED}",
    sections=[
      html_report.Figure(
        "How far the proxy can be trusted",
        policy.against_kl(result["kl"], groups or {pick_by: {"proxy": picked}}),
        "Proxy is the reward that picks, oracle the true utility. Stars are "
        "the highest points: past the oracle's, more of the proxy does harm.",
      ),
      html_report.Table(
        "Rewards by number of samples",
        ("n", "KL, nats", *names),
        rows,
        "Means over prompts and over all subsets of n samples. KL is "
        "log n - (n - 1) / n, an upper bound where samples tie.",
      ),
    ],
  )
