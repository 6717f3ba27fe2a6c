"""Markdown tables over seeds: means with spreads, and paired differences."""

import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats


def spread(values: Sequence[float], digits: int = 2) -> str:
  """Mean ± sample standard deviation."""
  mean = f"{statistics.fmean(values):.{digits}f}"
  if len(values) == 1:
    return mean
  return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def against(
  ours: Sequence[float], theirs: Sequence[float], digits: int = 2
) -> str:
  """Mean paired difference with Student's 95 % interval."""
  leads = np.asarray(ours) - np.asarray(theirs)
  mean = f"{leads.mean():+.{digits}f}"
  if len(leads) < 2 or not leads.any():
    return mean
  half = stats.t.ppf(0.975, len(leads) - 1) * stats.sem(leads)
  low, high = leads.mean() - half, leads.mean() + half
  return f"{mean} [{low:+.{digits}f}, {high:+.{digits}f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of Markdown, an empty one last."""
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
