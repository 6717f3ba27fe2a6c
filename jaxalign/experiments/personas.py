r"""Persona labels: label distributions of an LLM crowd for responses.

python -m jaxalign.experiments.personas --config=configs/personas.py \
    --config.endpoint.url=http://localhost:8000/v1 \
    --config.data.train_files="('my.jsonl',)" --workdir=runs/personas

says what that would cost and stops; with `--yes`, or within
`--config.personas.budget=DOLLARS`, it asks.
"""

import collections
import dataclasses
import json
import logging
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath

from jaxalign.data.llm_labels import client, cost, personas, prompts
from jaxalign.data.records import sources
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.experiments.common import cli, shipped_configs, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.llm_labels import answer_cache, persona_votes
from jaxalign.experiments.llm_labels.persona_votes import Labelled, Text
from jaxalign.experiments.reports import personas as personas_page
from jaxalign.ops import checks
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem, progress_bar

log = logging.getLogger("jaxalign")

CHUNK = 64  # texts asked about at once, which bounds memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonasConfig:
  """Personas to ask, and how their votes become distributions.

  Attributes:
    file: persona file, see `data.llm_labels.personas.load_personas`; a path, or
      the name of one beside the shipped configs.
    prior_strength: votes that the population's own distribution is worth.
    min_votes: valid votes that a response needs, else it gets no labels.
    price_prompt: dollars for a million tokens of questions.
    price_completion: dollars for a million tokens of answers.
    budget: dollars that the estimate must not exceed; None asks nothing
      without `--yes`.
  """

  file: str
  prior_strength: float = 5.0
  min_votes: int = 10
  price_prompt: float
  price_completion: float
  budget: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      0,
      prior_strength=self.prior_strength,
      price_prompt=self.price_prompt,
      price_completion=self.price_completion,
    )
    checks.at_least(1, min_votes=self.min_votes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `personas` reads.

  Attributes:
    seed: of the random part of waiting.
    data: responses of `train_files` and `eval_files` are labelled.
    endpoint: whom to ask.
    personas: who votes.
  """

  seed: int = 0
  data: preferences.DataConfig
  endpoint: prompts.EndpointConfig = prompts.EndpointConfig()
  personas: PersonasConfig


def run(config: Config, workdir: epath.Path, *, yes: bool = False) -> None:
  """Writes train.jsonl and eval.jsonl with labels, votes.jsonl and a page.

  Running it again asks only what has no answer yet.

  Args:
    config: the resolved config.
    workdir: gets the files, and answers.jsonl, which later runs read.
    yes: whether to ask whatever it costs, where there is no budget.

  Raises:
    ValueError: the estimate exceeds the budget, or there is none and no `yes`;
      a bad record or persona file.
    EndpointError: the endpoint refuses every question.
  """
  if not multihost.is_main():
    return  # one process asks; the others would ask the same
  file = shipped_configs.find(sources.expand_variables(config.personas.file))
  crowd = personas.load_personas(file)
  splits = {
    name: preferences.load_records(config.data, files)
    for name, files in (
      ("train", config.data.train_files),
      ("eval", config.data.eval_files),
    )
    if files
  }
  if not splits:
    raise ValueError(
      "data.train_files or data.eval_files must name a source, got none"
    )
  texts = [*dict.fromkeys(_texts(r) for rs in splits.values() for r in rs)]
  flat = [*dict.fromkeys(text for several in texts for text in several)]
  with answer_cache.AnswerCache(workdir / "answers.jsonl") as cache:
    estimate = cost.estimate(
      config.endpoint,
      (
        messages
        for text in flat
        for messages in persona_votes.asked_about(crowd, text)
      ),
      cache.answers,
      price_prompt=config.personas.price_prompt,
      price_completion=config.personas.price_completion,
    )
    configuration.write_json(workdir / "estimate.json", estimate._asdict())
    log.info("%s", estimate.in_words())
    cost.check_allowed(
      estimate, config.personas.budget, key="personas.budget", yes=yes
    )
    found, counts = _ask(config, crowd, flat, cache)
  lost = {}
  for name, records in splits.items():
    rows = _with_labels(records, found)
    lost[name] = len(records) - len(rows)
    _write_lines(workdir / f"{name}.jsonl", rows)
  _write_lines(workdir / "votes.jsonl", [_row(t, f) for t, f in found.items()])
  result = personas_page.summarise(crowd, list(found.values()), counts, lost)
  configuration.write_json(workdir / "eval.json", result)
  personas_page.write(workdir, crowd, result)
  summary.say(
    [personas_page.headline(result)],
    records=", ".join(str(workdir / f"{name}.jsonl") for name in splits),
    report=workdir / "report.html",
    then=summary.command(
      "train_reward",
      "rm_dprm_crowd",
      f"--config.data.train_files={(str(workdir / 'train.jsonl'),)}",
    ),
  )


def _texts(record: Record) -> tuple[Text, ...]:
  prompt = text_of(record.prompt)
  return tuple(Text(prompt, text_of(one)) for one in record.responses)


def _ask(
  config: Config,
  crowd: personas.PersonaFile,
  texts: Sequence[Text],
  cache: answer_cache.AnswerCache,
) -> tuple[dict[Text, Labelled], dict[str, int]]:
  """Labels of every text and the endpoint's counts, chunk by chunk."""
  per_text = 1 + len(crowd.personas)
  found: dict[Text, Labelled] = {}
  counts: collections.Counter[str] = collections.Counter()
  starts = range(0, len(texts), CHUNK)
  for start in progress_bar.watched(
    starts, total=len(starts), what=f"asking about {len(texts)} responses"
  ):
    chunk = texts[start : start + CHUNK]
    answers, new = client.ask_all(
      config.endpoint,
      [
        messages
        for text in chunk
        for messages in persona_votes.asked_about(crowd, text)
      ],
      known=cache.answers,
      remember=cache.remember,
      seed=config.seed,
    )
    counts.update(new)
    for answer in answers:
      if answer is not None:
        counts["prompt_tokens"] += answer.prompt_tokens
        counts["completion_tokens"] += answer.completion_tokens
    for i, text in enumerate(chunk):
      found[text] = persona_votes.label(
        crowd,
        answers[i * per_text : (i + 1) * per_text],
        prior_strength=config.personas.prior_strength,
        min_votes=config.personas.min_votes,
      )
  return found, dict(counts)


def _with_labels(
  records: Sequence[Record], found: dict[Text, Labelled]
) -> list[dict[str, Any]]:
  """Records whose every response has labels, as rows.

  Prior and votes stay beside the labels, for other weights and later votes.
  """
  rows = []
  for record in records:
    said = [found[text] for text in _texts(record)]
    known = [
      (one.alpha / one.alpha.sum(), one.counts, one.prior)
      for one in said
      if one.alpha is not None
    ]
    if len(known) < len(said):
      continue
    labels, votes, priors = zip(*known, strict=True)
    labelled = dataclasses.replace(
      record,
      labels=tuple(tuple(shares.tolist()) for shares in labels),
      label_votes=votes,
      label_prior=priors,
    )
    rows.append(labelled.to_row())
  return rows


def _row(text: Text, found: Labelled) -> dict[str, Any]:
  return {
    "prompt": text.prompt,
    "response": text.response,
    "prior": found.prior,
    "votes": found.votes,
    "alpha": None if found.alpha is None else found.alpha.tolist(),
  }


def _write_lines(path: epath.Path, rows: Sequence[Any]) -> None:
  lines = (json.dumps(row, allow_nan=False) for row in rows)
  text = "".join(f"{line}\n" for line in lines)
  filesystem.write_atomically(path, text.encode())


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  flags.DEFINE_bool("yes", False, "Ask, whatever the estimate says.")
  cli.main(Config, run, yes=lambda: flags.FLAGS.yes)


if __name__ == "__main__":
  main()
