"""A second judge of the synthetic crowd's records, who knows the truth."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.data.records.record import Record
from jaxalign.data.synthetic.config import CrowdConfig
from jaxalign.data.synthetic.votes import vote_probs


def with_judge(
  config: CrowdConfig,
  records: Sequence[Record],
  times: Sequence[float] | np.ndarray,
) -> list[Record]:
  """The records with `judge_prob`, what they say without label noise.

  Args:
    config: the crowd.
    records: pairs in the order drawn.
    times: when each was asked.

  Returns:
    The same records; one that names its group has that group's probability, one
    of pooled votes the whole crowd's.
  """
  clear = dataclasses.replace(config, label_noise=0.0)
  found = []
  for record, time in zip(records, times, strict=True):
    probs = vote_probs(clear, record.prompt, *record.responses, time=time)
    if record.group is None:
      prob = float(np.asarray(config.shares) @ probs)
    else:
      prob = float(probs[config.groups.index(record.group)])
    found.append(dataclasses.replace(record, judge_prob=prob))
  return found
