"""Persona votes: questions to an LLM crowd about responses, and answers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.llm_labels import personas, prompts


class Text(NamedTuple):
  """A response to be labelled, with its place in the file."""

  prompt: str
  response: str


def asked_about(
  crowd: personas.PersonaFile, text: Text
) -> list[list[dict[str, str]]]:
  """The population's question first, then one per persona."""
  return [
    personas.prior_question(crowd, *text),
    *(personas.vote_question(crowd, one, *text) for one in crowd.personas),
  ]


class Labelled(NamedTuple):
  """Label distribution and votes of the crowd for one response.

  Attributes:
    prior: the population's shares, None where there is no valid answer.
    votes: label from 0 per persona, None where there is no valid vote.
    outcomes: of the prior's question and of each persona's.
    counts: valid votes per label.
    alpha: pseudo-counts, None with too few votes or without a prior.
  """

  prior: tuple[float, ...] | None
  votes: dict[str, int | None]
  outcomes: tuple[str, ...]
  counts: tuple[int, ...]
  alpha: np.ndarray | None


def label(
  crowd: personas.PersonaFile,
  answers: Sequence[prompts.Answer | None],
  *,
  prior_strength: float,
  min_votes: int,
) -> Labelled:
  """The votes on one response.

  Args:
    crowd: who was asked.
    answers: to the questions of `asked_about`, in that order.
    prior_strength: votes that the prior is worth.
    min_votes: valid votes without which there are no pseudo-counts.

  Returns:
    What was said.
  """
  num_labels = len(crowd.labels)
  prior_outcome, prior = personas.outcome(
    answers[0], personas.parse_prior, num_labels
  )
  outcomes, votes = [prior_outcome], {}
  for one, answer in zip(crowd.personas, answers[1:], strict=True):
    found, votes[one.name] = personas.outcome(
      answer, personas.parse_vote, num_labels
    )
    outcomes.append(found)
  valid = [vote for vote in votes.values() if vote is not None]
  counts = np.bincount(np.array(valid, int), minlength=num_labels)
  alpha = None
  if prior is not None and len(valid) >= min_votes:
    alpha = personas.pseudo_counts(prior, counts, prior_strength)
  return Labelled(prior, votes, tuple(outcomes), tuple(counts.tolist()), alpha)
