"""Label distributions for the records of the synthetic crowd."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.data.records.record import Record
from jaxalign.data.synthetic.config import CrowdConfig
from jaxalign.data.synthetic.votes import label_shares


def with_labels(
  config: CrowdConfig,
  records: Sequence[Record],
  times: Sequence[float] | np.ndarray,
  rng: np.random.Generator,
) -> list[Record]:
  """The records, each response labelled by people of the crowd.

  Args:
    config: `label_votes` people, of all groups, label each response; with 0
      `labels` is what the whole crowd would say, the truth of all estimates.
    records: in the order drawn; those of one pair share their labels.
    times: when each was asked.
    rng: source of the votes.

  Returns:
    The same records with `labels`, and with `label_votes` where people voted.
  """
  known: dict[tuple[str, str], np.ndarray] = {}
  found = []
  for record, time in zip(records, times, strict=True):
    prompt = str(record.prompt)
    # By name: which response was preferred must not decide who is asked first.
    for text in sorted(map(str, record.responses)):
      if (prompt, text) not in known:
        shares = label_shares(config, prompt, text, time=time)
        known[prompt, text] = (
          rng.multinomial(config.label_votes, shares)
          if config.label_votes
          else shares
        )
    rows = [known[prompt, str(text)] for text in record.responses]
    labels = tuple(tuple((row / row.sum()).tolist()) for row in rows)
    votes = None
    if config.label_votes:
      votes = tuple(tuple(row.tolist()) for row in rows)
    found.append(dataclasses.replace(record, labels=labels, label_votes=votes))
  return found
