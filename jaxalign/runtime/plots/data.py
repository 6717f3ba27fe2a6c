"""Pictures of preferences themselves, before any model has seen them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style


def _plain_ticks(axis: Any, steps: Sequence[float]) -> None:
  """Numbers as people write them, at these multiples of powers of ten."""
  from matplotlib import ticker

  axis.set_major_locator(ticker.LogLocator(subs=steps))
  axis.set_major_formatter(
    ticker.FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:g}")
  )
  axis.set_minor_formatter(ticker.NullFormatter())


def spread(
  series: Mapping[str, Any], *, label: str, bins: int = 40, unit: str = "pairs"
) -> bytes:
  """How positive quantities are spread, on a logarithmic axis.

  Args:
    series: name -> values, [...]; zeros are drawn as ones.
    label: what is measured, with its unit.
    bins: number of bins, common to all.
    unit: what is counted.

  Returns:
    PNG file, with each median in the legend.
  """
  drawn, panels = style.new(6.4, 3.4)
  panel = panels[0, 0]
  values = {
    name: np.maximum(np.asarray(entries, np.float64).ravel(), 1.0)
    for name, entries in series.items()
  }
  every = np.concatenate([*values.values(), np.empty(0)])
  low, high = (every.min(), every.max()) if every.size else (1.0, 10.0)
  edges = np.geomspace(low / 1.1, high * 1.1, bins + 1)
  for (name, entries), colour in zip(
    values.items(), style.COLOURS, strict=False
  ):
    if entries.size:
      panel.hist(
        entries,
        edges,
        histtype="stepfilled",
        facecolor=(colour, 0.25),
        edgecolor=colour,
        label=f"{name}: median {np.median(entries):,.0f}",
      )
  if any(v.size for v in values.values()):
    style.legend(panel)
  else:
    style.say_empty(panel)
  panel.set(xlabel=label, ylabel=unit, xscale="log")
  _plain_ticks(panel.xaxis, (1.0, 2.0, 5.0))
  return style.to_png(drawn)


def win_rates(
  ratio: Any, wins: Any, *, num_bins: int = 10, noise_sigmas: float = 1.96
) -> bytes:
  """How often the longer response wins, by how much longer it is.

  Pairs are binned by the ratio of lengths into bins of equally many; bars are
  95 of 100 samples of a coin with the observed rate.

  Args:
    ratio: of the longer length to the shorter, >= 1, [N].
    wins: whether the longer was chosen, one half for a tie, [N].
    num_bins: bins.
    noise_sigmas: half length of the bars in standard errors.

  Returns:
    PNG file.

  Raises:
    ValueError: the lengths differ.
  """
  ratio, wins = (np.asarray(part, np.float64).ravel() for part in (ratio, wins))
  if ratio.shape != wins.shape:
    raise ValueError(
      f"ratio and wins must be as long, got {ratio.shape} and {wins.shape}"
    )
  drawn, panels = style.new(6.4, 3.4)
  panel = panels[0, 0]
  panel.axhline(0.5, color=style.GREY, linewidth=1, linestyle="--")
  order = np.argsort(ratio, kind="stable")
  if ratio.size:
    for part in np.array_split(order, min(num_bins, ratio.size)):
      rate = wins[part].mean()
      error = noise_sigmas * np.sqrt(rate * (1 - rate) / part.size)
      middle = np.exp(np.log(ratio[part]).mean())
      panel.errorbar(
        middle, rate, yerr=error, color=style.BLUE, marker="o", capsize=3
      )
  else:
    style.say_empty(panel)
  panel.set(
    xlabel="length of the longer response / the shorter",
    ylabel="longer one chosen",
    xscale="log",
    ylim=(0, 1),
  )
  _plain_ticks(panel.xaxis, (1.0, 1.5, 2.0, 3.0, 5.0))
  return style.to_png(drawn)


def ranked_counts(counts: Sequence[int], *, label: str, unit: str) -> bytes:
  """Counts from the largest down, both axes logarithmic.

  Args:
    counts: positive numbers.
    label: whose counts they are.
    unit: what is counted.

  Returns:
    PNG file, with the share of the largest in the legend.
  """
  drawn, panels = style.new(6.4, 3.4)
  panel = panels[0, 0]
  ranked = np.sort(np.asarray(counts, np.float64))[::-1]
  if ranked.size:
    panel.plot(
      np.arange(1, ranked.size + 1),
      ranked,
      color=style.BLUE,
      marker="o" if ranked.size < 40 else None,
      markersize=4,
      label=f"busiest: {100 * ranked[0] / ranked.sum():.1f} % of all",
    )
    style.legend(panel)
  else:
    style.say_empty(panel)
  panel.set(xlabel=label, ylabel=unit, xscale="log", yscale="log")
  for axis in (panel.xaxis, panel.yaxis):
    _plain_ticks(axis, (1.0,))
  return style.to_png(drawn)


def vote_shares(shares: Any, *, bins: int = 20) -> bytes:
  """How the share of votes for the preferred response is spread.

  Args:
    shares: ties counted half, in [0, 1], [N].
    bins: number of bins over [0, 1].

  Returns:
    PNG file.
  """
  drawn, panels = style.new(6.4, 3.0)
  panel = panels[0, 0]
  values = np.asarray(shares, np.float64).ravel()
  if values.size:
    panel.hist(values, np.linspace(0, 1, bins + 1), color=style.BLUE)
  else:
    style.say_empty(panel)
  panel.set(xlabel="share of votes for the chosen response", ylabel="pairs")
  return style.to_png(drawn)
