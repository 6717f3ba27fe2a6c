"""Cost of questions to a paid endpoint: estimate, budget, consent."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import NamedTuple

from jaxalign.data.llm_labels import prompts
from jaxalign.ops import checks

CHARACTERS_PER_TOKEN = 4  # of English, for the estimate alone


@dataclasses.dataclass(frozen=True)
class PricedEndpointConfig(prompts.EndpointConfig):
  """Chat endpoint, its prices, and what may be spent on it.

  Attributes:
    price_prompt: dollars for a million tokens of questions.
    price_completion: dollars for a million tokens of answers.
    budget: dollars that may be spent, by the estimate; None asks for `--yes`.
  """

  price_prompt: float = 0.0
  price_completion: float = 0.0
  budget: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    checks.at_least(
      0,
      price_prompt=self.price_prompt,
      price_completion=self.price_completion,
      budget=self.budget,
    )


class Estimate(NamedTuple):
  """What the questions still to be asked will cost, at most.

  Attributes:
    questions: not answered yet.
    known: answered in an earlier run.
    prompt_tokens: of the questions, guessed from their characters.
    completion_tokens: if every answer is as long as allowed.
    dollars: at the prices of the config.
  """

  questions: int
  known: int
  prompt_tokens: int
  completion_tokens: int
  dollars: float

  def in_words(self) -> str:
    """The estimate as a sentence."""
    return (
      f"{self.questions:,} questions to ask ({self.known:,} answered before): "
      f"about {self.prompt_tokens:,} tokens of questions and at most "
      f"{self.completion_tokens:,} of answers, up to ${self.dollars:.2f}"
    )


def estimate(
  config: prompts.EndpointConfig,
  questions: Iterable[prompts.Messages],
  known: Collection[str],
  *,
  price_prompt: float,
  price_completion: float,
) -> Estimate:
  """The cost of what is left to ask, before anything is asked.

  Args:
    config: the endpoint.
    questions: all that will be asked, those with an answer among them.
    known: keys of the questions that have an answer.
    price_prompt: dollars for a million tokens of questions.
    price_completion: dollars for a million tokens of answers.

  Returns:
    The estimate.
  """
  characters = asked = answered = 0
  for messages in questions:
    if prompts.question_key(config, messages) in known:
      answered += 1
      continue
    asked += 1
    characters += sum(len(message["content"]) for message in messages)
  prompt_tokens = characters // CHARACTERS_PER_TOKEN
  completion_tokens = asked * config.max_tokens
  dollars = (
    prompt_tokens * price_prompt + completion_tokens * price_completion
  ) / 1e6
  return Estimate(asked, answered, prompt_tokens, completion_tokens, dollars)


def check_allowed(
  cost: Estimate, budget: float | None, *, key: str, yes: bool
) -> None:
  """Refuses to spend money without consent.

  Args:
    cost: the estimate.
    budget: dollars that may be spent, None where the config names none.
    key: the config's key of the budget, for errors.
    yes: whether the command line agrees to any cost.

  Raises:
    ValueError: the estimate exceeds the budget, or there are questions to ask
      and neither a budget nor `yes`.
  """
  if budget is not None:
    if cost.dollars > budget:
      raise ValueError(
        f"the estimate of ${cost.dollars:.2f} exceeds {key} "
        f"${budget:.2f}; nothing was asked"
      )
  elif cost.questions and not yes:
    raise ValueError(
      f"{cost.questions:,} questions for up to ${cost.dollars:.2f} are to be "
      "asked, and nothing was: the same command with --yes asks them, or with "
      f"--config.{key}=DOLLARS where that suffices"
    )
