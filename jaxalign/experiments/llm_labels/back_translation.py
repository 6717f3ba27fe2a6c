"""Back-translation: texts that a chat model translates and translates back.

Every answer is kept in a file as it comes. A killed run goes on where it was,
and with a complete file nobody is asked, so that results can be had again.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from jaxalign.data.llm_labels import client, cost, prompts
from jaxalign.experiments.llm_labels import answer_cache
from jaxalign.runtime.io import progress_bar

log = logging.getLogger("jaxalign")

SYSTEM = (
  "You translate into {language}. Answer with the translation alone. Keep line "
  "breaks, names, numbers and code as they are."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslatorConfig(cost.PricedEndpointConfig):
  """A chat model that translates, and the file of what it has said.

  Attributes:
    file: where answers are kept and looked up, JSON lines; every host must see
      it.
    language: what texts are translated into on the way.
    original: what they are in, and are translated back into.
    budget: dollars that may be spent, by the estimate; 0 without prices is an
      endpoint of your own.
    temperature: of sampling, >= 0.
    max_tokens: of an answer; a longer translation counts as none.
  """

  file: str
  language: str = "German"
  original: str = "English"
  temperature: float = 0.0
  max_tokens: int = 1024

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    super().__post_init__()
    if self.budget is None:
      raise ValueError(
        "budget must be the dollars that may be spent on translations, 0 "
        "without prices; got None"
      )
    if not self.file:
      raise ValueError("file must name where translations are kept, got ''")


class Translated(NamedTuple):
  """What became of N texts.

  Attributes:
    texts: there and back, None where either answer is missing, cut or empty.
    counts: of the endpoint, as `client.ask_all` has them, over both ways.
  """

  texts: list[str | None]
  counts: dict[str, int]


def question(text: str, language: str) -> prompts.Messages:
  """The messages that ask for a translation."""
  return [
    {"role": "system", "content": SYSTEM.format(language=language)},
    {"role": "user", "content": text},
  ]


def read(answer: prompts.Answer | None) -> str | None:
  """A translation without space at its ends; None for what is none."""
  if answer is None or answer.refused or answer.finish == "length":
    return None
  return answer.text.strip() or None


def translate(
  config: TranslatorConfig, texts: Sequence[str], *, seed: int = 0
) -> Translated:
  """Translates texts there and back, equal ones once, and keeps the answers.

  Args:
    config: the endpoint and the file.
    texts: N of them.
    seed: of the random part of waiting.

  Returns:
    The texts; space at either end of one is that of the original.

  Raises:
    EndpointError: the endpoint refuses every question.
    ValueError: the estimate exceeds the budget; then nothing was asked.
  """
  wanted = list(dict.fromkeys(text.strip() for text in texts))
  wanted = [text for text in wanted if text]
  counts: dict[str, int] = {}
  with answer_cache.AnswerCache(epath.Path(config.file)) as cache:
    estimate = _estimate(config, wanted, cache.answers)
    log.info("translator: %s", estimate.in_words())
    cost.check_allowed(
      estimate, config.budget, key="recipe.translator.budget", yes=False
    )
    with progress_bar.counted(
      total=estimate.questions, what="translating"
    ) as done:
      there = _asked(config, wanted, config.language, cache, counts, done, seed)
      back = _asked(
        config, [*there.values()], config.original, cache, counts, done, seed
      )
  return Translated(_both_ways(texts, there, back), counts)


def kept(config: TranslatorConfig, texts: Sequence[str]) -> Translated:
  """`translate` by what the file holds alone: nobody is asked.

  Args:
    config: names the file.
    texts: N of them.

  Returns:
    The texts, without counts.
  """
  known, _ = answer_cache.read(epath.Path(config.file))

  def look_up(wanted: Iterable[str], language: str) -> dict[str, str]:
    keys = {
      text: prompts.question_key(config, question(text, language))
      for text in wanted
    }
    found = {text: read(known.get(key)) for text, key in keys.items()}
    return {text: said for text, said in found.items() if said is not None}

  there = look_up((text.strip() for text in texts), config.language)
  back = look_up(there.values(), config.original)
  return Translated(_both_ways(texts, there, back), {})


def _both_ways(
  texts: Sequence[str], there: Mapping[str, str], back: Mapping[str, str]
) -> list[str | None]:
  """Each text there and back, between the space at its ends."""
  whole = {
    text: back[between] for text, between in there.items() if between in back
  }
  return [_placed(text, whole) for text in texts]


def _placed(text: str, found: Mapping[str, str]) -> str | None:
  """The translation of a text between the space at its ends."""
  inside = text.strip()
  if inside not in found:
    return None
  before, _, after = text.partition(inside)
  return f"{before}{found[inside]}{after}"


def _asked(
  config: TranslatorConfig,
  texts: Sequence[str],
  language: str,
  cache: answer_cache.AnswerCache,
  counts: dict[str, int],
  done: Callable[[], None],
  seed: int,
) -> dict[str, str]:
  """Translations of those texts that have one; counts are added up."""

  def remember(key: str, answer: prompts.Answer) -> None:
    cache.remember(key, answer)
    done()

  answers, made = client.ask_all(
    config,
    [question(text, language) for text in texts],
    known=cache.answers,
    remember=remember,
    seed=seed,
  )
  for name, number in made.items():
    counts[name] = counts.get(name, 0) + number
  read_all = zip(texts, map(read, answers), strict=True)
  return {text: found for text, found in read_all if found is not None}


def _estimate(
  config: TranslatorConfig,
  texts: Sequence[str],
  known: Mapping[str, prompts.Answer],
) -> cost.Estimate:
  """Of both ways; what is not translated yet counts as long as its original."""
  there = [question(text, config.language) for text in texts]
  back = []
  for text, one in zip(texts, there, strict=True):
    answer = known.get(prompts.question_key(config, one))
    between = text if answer is None else read(answer)
    if between is not None:
      back.append(question(between, config.original))
  return cost.estimate(
    config,
    [*there, *back],
    known,
    price_prompt=config.price_prompt,
    price_completion=config.price_completion,
  )
