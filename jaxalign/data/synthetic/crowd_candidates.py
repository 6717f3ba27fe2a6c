"""Unlabelled responses in the synthetic crowd, as a base policy gives them."""

import numpy as np

from jaxalign.data.records.record import Record
from jaxalign.data.synthetic import texts

PROMPTS, RESPONSES = 512, 5


def draw_candidates(seed: int, split: str) -> list[Record]:
  """Prompts with different responses of every quality, in no order.

  Nobody has compared them: they are for what learns without labels, such as the
  meta step of MetaRM, and would be false rankings to anything else.

  Args:
    seed: of the crowd.
    split: "train" or "test", the things that prompts are about.

  Returns:
    `PROMPTS` records of `RESPONSES` responses each, from a stream of its own:
    asking for candidates changes no vote.
  """
  rng = np.random.default_rng([seed, ("train", "test").index(split), 2])
  records = []
  for number in range(PROMPTS):
    prompt, responses = texts.draw_responses(rng, split, RESPONSES)
    records.append(
      Record(
        prompt=prompt,
        responses=responses,
        source="candidates",
        id=f"{split}-candidates-{number:04d}",
      )
    )
  return records
