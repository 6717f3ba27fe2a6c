"""Samples on the disk while they are made, and the page about them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from jaxalign.runtime.io import filesystem
from jaxalign.runtime.plots import groups as group_plots
from jaxalign.runtime.plots import html_report


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


def write(
  workdir: epath.Path, result: Mapping[str, Any], prompts: int, pick_by: str
) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page.
    result: content of eval.json.
    prompts: how many there were.
    pick_by: by what the best was picked.
  """
  names = [f"proxy {name}" for name in result["names"]]
  names += [f"oracle {name}" for name in result["oracle_names"]]
  rows = []
  for i, (n, kl) in enumerate(zip(result["sizes"], result["kl"], strict=True)):
    cells = [
      f"{value:.3f} [{low:.3f}, {high:.3f}]"
      for part in ("proxy", "oracle")
      for value, low, high in zip(
        *(result[part][key][i] for key in ("value", "low", "high")), strict=True
      )
    ]
    rows.append([n, f"{kl:.3f}", *cells])
  sections: list[html_report.Table | html_report.Figure] = [
    html_report.Table(
      f"Best of n by {pick_by}, {prompts} prompts",
      ("n", "KL, nats", *names),
      rows,
      "Means over prompts and over all subsets of n samples, with 95 % "
      "intervals over prompts. KL is log n - (n - 1) / n, an upper bound where "
      "samples tie.",
    )
  ]
  column = lambda part, k: [row[k] for row in result[part]["value"]]
  picked = column("picked_by", 0)
  groups = {
    name: {
      "proxy": column("proxy", result["names"].index(name))
      if name in result["names"]
      else picked,
      "oracle": column("oracle", k),
    }
    for k, name in enumerate(result["oracle_names"])
  }
  sections.append(
    html_report.Figure(
      "How far the proxy can be trusted",
      group_plots.rewards_against_kl(
        result["kl"],
        groups if groups else {pick_by: {"proxy": picked}},
        label="reward",
      ),
      "Stars are the highest points: past the oracle's, more of the proxy does "
      "harm.",
    )
  )
  html_report.write_report(
    workdir / "report.html",
    title=f"Best of n by {pick_by}",
    summary="",
    sections=sections,
  )
