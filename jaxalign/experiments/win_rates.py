r"""Win rates: two files of answers to the same prompts, compared.

python -m jaxalign.experiments.win_rates --config=configs/win_rates.py \
    --config.first="('runs/a/best.jsonl',)" \
    --config.second="('runs/b/best.jsonl',)" --workdir=runs/win_rates
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath

from jaxalign import metrics
from jaxalign.data.llm_labels import cost
from jaxalign.data.records import chat, reader
from jaxalign.data.records.chat import Text
from jaxalign.data.records.record import Record
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.llm_labels import answer_cache, llm_judge
from jaxalign.experiments.policy import label_shares, reward_source
from jaxalign.experiments.reports import win_rates
from jaxalign.experiments.reward_model import pair_scores
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import progress_bar
from jaxalign.runtime.reward_sources import labels as source_labels

CHUNK = 1024  # answers scored at a time, for the bar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `win_rates` reads.

  Attributes:
    seed: of resampling and of the random part of waiting.
    first: sources of records whose first response is the answer.
    second: the same prompts in the same order with other answers.
    source: who compares by reward, per output: an oracle, a held-out reward
      model, or any other source.
    crowd_seed: of synthetic sources, and of the responses by which a crowd's
      utilities are calibrated: those that the answers were trained on.
    margin: rewards closer than this are a tie.
    judge: a chat endpoint that compares, in both orders; None for none.
    instructions: NAME=TEXT of each group by whose instruction the judge
      compares, such as "brief=Is it short?", or "helpful" or "harmless" alone
      for the question of that name: on the group's own prompts where
      records name it, else on all. Without any it compares quality as such.
    num_resamples: of the bootstrap over prompts, or over the people who asked
      them where they are known.
    mesh: devices of the source's models.
  """

  seed: int = 0
  first: tuple[str, ...]
  second: tuple[str, ...]
  source: reward_source.RewardSourceConfig
  crowd_seed: int = 0
  margin: float = 0.0
  judge: cost.PricedEndpointConfig | None = None
  instructions: tuple[str, ...] = ()
  num_resamples: int = 1000
  mesh: meshes.MeshConfig = meshes.MeshConfig()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(0, margin=self.margin)
    checks.at_least(2, num_resamples=self.num_resamples)
    parts = [_instruction(text) for text in self.instructions]
    if len({name for name, _ in parts}) < len(parts) or not all(
      name and text for name, text in parts
    ):
      raise ValueError(
        "instructions must be NAME=TEXT each, of different names, or one of "
        f"{', '.join(llm_judge.CRITERIA)} alone; got {self.instructions}"
      )
    if self.instructions and self.judge is None:
      raise ValueError(
        "instructions are what the judge compares by: set judge as well"
      )

  def judges(self) -> dict[str, str | None]:
    """What the judge compares by, per name; None for quality as such."""
    if not self.instructions:
      return {"judge": None}
    return dict(map(_instruction, self.instructions))


def _instruction(text: str) -> tuple[str, str]:
  """Name and text of NAME=TEXT, or of a name that the judge knows."""
  name, _, said = text.partition("=")
  name, said = name.strip(), said.strip()
  known = "" if "=" in text else llm_judge.CRITERIA.get(name, "")
  return name, said or known


def load_answers(files: tuple[str, ...], crowd_seed: int) -> list[Record]:
  """The records of some sources, those with an empty answer among them."""
  return list(
    reader.RecordStream(
      files, "error", (), crowd_seed=crowd_seed, drop_unusable=False
    )
  )


def outcomes_of(gaps: np.ndarray, margin: float) -> np.ndarray:
  """1 where a reward gap is a win, 0 for a loss and 0.5 for a tie, [...]."""
  return np.where(np.abs(gaps) <= margin, 0.5, (gaps > 0).astype(float))


@functools.partial(jax.jit, static_argnames="num_resamples")
def _interval(
  rows: jax.Array, key: jax.Array, num_resamples: int
) -> metrics.Interval:
  return metrics.bootstrap_interval(
    lambda rows: rows.mean(axis=0), rows, key=key, num_samples=num_resamples
  )


def summarise(
  outcomes: np.ndarray,
  config: Config,
  gaps: np.ndarray | None = None,
  people: np.ndarray | None = None,
) -> dict[str, Any]:
  """Rates of one judge over the pairs that it has judged.

  Args:
    outcomes: 1, 0.5, 0 or NaN, [P].
    config: seed and resamples.
    gaps: reward of the first answer over the second's, [P], from a judge that
      gives rewards.
    people: who asked each prompt, of `pair_scores.clusters_of`, [P]; None for
      intervals over prompts.

  Returns:
    `num_pairs`, `win`, `tie` and `loss` rates, `score` (ties as half) with its
    95 % interval `low`, `high`, and the mean `gap` with `gap_low`, `gap_high`;
    None without a pair, and the last three without gaps.
  """
  judged = ~np.isnan(outcomes)
  found: dict[str, Any] = {"num_pairs": int(judged.sum())}
  found |= dict.fromkeys(win_rates.COLUMNS)
  if not judged.any():
    return found
  for value, name in ((1.0, "win"), (0.5, "tie"), (0.0, "loss")):
    found[name] = float(np.mean(outcomes[judged] == value))
  for rows, names in (
    (outcomes, win_rates.COLUMNS[3:6]),
    (gaps, win_rates.COLUMNS[6:]),
  ):
    if rows is None:
      continue
    key = jax.random.key(config.seed)
    values = rows[judged].astype(np.float32)
    if people is None:
      interval = _interval(values, key, config.num_resamples)
    else:
      interval = pair_scores.mean_over_people(
        values,
        people[judged],
        key,
        num_people=int(people.max()) + 1,
        num_samples=config.num_resamples,
      )
    values = (rows[judged].mean(), interval.low, interval.high)
    found |= zip(names, map(float, values), strict=True)
  return found


def score_both(
  source: Any,
  prompts: Sequence[chat.Text],
  ours: Sequence[str],
  theirs: Sequence[str],
) -> tuple[np.ndarray, np.ndarray | None]:
  """Rewards and label shares of two answers to each prompt.

  Args:
    source: of rewards, with labels or without.
    prompts: P of them.
    ours: P answers.
    theirs: P others.

  Returns:
    Rewards of ours over theirs, [P, K], and label shares of both, [2, P, d],
    None without labels.
  """
  starts = range(0, len(prompts), CHUNK)
  gaps, shares = [], []
  for at in progress_bar.watched(
    starts, total=len(starts), what="scoring answers"
  ):
    part = slice(at, at + CHUNK)
    first, second = (
      source_labels.score(source, prompts[part], texts[part])
      for texts in (ours, theirs)
    )
    gaps.append(first.rewards - second.rewards)
    if first.label_probs is not None and second.label_probs is not None:
      shares.append(np.stack([first.label_probs, second.label_probs]))
  return (
    np.concatenate(gaps),
    np.concatenate(shares, axis=1) if shares else None,
  )


def judged(
  config: Config,
  answers: Sequence[tuple[Text, str, str]],
  kinds: Mapping[str, np.ndarray],
  cache: answer_cache.AnswerCache,
  *,
  yes: bool,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  """What the judge says of every pair, by each group's instruction.

  Args:
    config: with the judge.
    answers: every prompt with both answers, P.
    kinds: prompts of each known group, bool [P] by name.
    cache: of what was asked before.
    yes: whether to ask whatever it costs, where there is no budget.

  Returns:
    Outcomes [P] by the name of the judge, NaN where it was not asked, and its
    counts over all instructions.
  """
  asked, rows = {}, []
  for name, instruction in config.judges().items():
    at = np.flatnonzero(kinds.get(name, np.ones(len(answers), bool)))
    asked[name if instruction is None else f"judge as {name}"] = at
    rows += [(*answers[row], instruction) for row in at]
  prompts, ours, theirs, wanted = zip(*rows, strict=True)
  verdicts = llm_judge.ask(
    config.judge,
    prompts,
    ours,
    theirs,
    cache,
    seed=config.seed,
    yes=yes,
    instructions=wanted,
  )
  found, done = {}, 0
  for name, at in asked.items():
    found[name] = np.full(len(answers), np.nan)
    found[name][at] = verdicts.outcomes[done : done + len(at)]
    done += len(at)
  return found, verdicts.counts


def run(config: Config, workdir: epath.Path, *, yes: bool = False) -> None:
  """Writes eval.json and report.html.

  Args:
    config: the resolved config.
    workdir: gets the files, and answers.jsonl of the judge, which later runs
      read.
    yes: whether to ask the judge whatever it costs, where there is no budget.

  Raises:
    ValueError: the two files do not answer the same prompts; or the judge's
      estimate exceeds its budget, or there is none and no `yes`.
    EndpointError: the judge refuses every question.
    RewardError: the source gave up.
  """
  first, second = (
    load_answers(files, config.crowd_seed)
    for files in (config.first, config.second)
  )
  prompts = [record.prompt for record in first]
  if not prompts or prompts != [record.prompt for record in second]:
    raise ValueError(
      f"first and second must answer the same prompts in the same order, got "
      f"{len(first)} and {len(second)} records of {config.first} and "
      f"{config.second}"
    )
  ours, theirs = (
    [chat.text_of(record.responses[0]) for record in records]
    for records in (first, second)
  )
  source = reward_source.open_source(
    config.source,
    meshes.make_mesh(config.mesh),
    config.mesh.rules,
    crowd_seed=config.crowd_seed,
  )
  gaps, shares = score_both(source, prompts, ours, theirs)
  found = {
    name: outcomes_of(gaps[:, k], config.margin)
    for k, name in enumerate(source.names)
  }
  result: dict[str, Any] = {}
  answers = list(zip(prompts, ours, theirs, strict=True))
  groups = {
    group: np.array([record.group == group for record in first])
    for group in sorted({r.group for r in first if r.group is not None})
  }
  if config.judge is not None:
    with answer_cache.AnswerCache(workdir / "answers.jsonl") as cache:
      verdicts, counts = judged(config, answers, groups, cache, yes=yes)
    found |= verdicts
    result["judge_counts"] = counts
  kinds = {"all": np.ones(len(first), bool), **groups}
  people = pair_scores.clusters_of(pair_scores.annotators(first))
  gaps_of = dict(zip(source.names, gaps.T, strict=True))
  result["intervals_over"] = "prompts" if people is None else "people"
  result["rates"] = {
    name: {
      kind: summarise(
        outcomes[where],
        config,
        gaps_of[name][where] if name in gaps_of else None,
        None if people is None else people[where],
      )
      for kind, where in kinds.items()
    }
    for name, outcomes in found.items()
  }
  named = source_labels.labels_of(source)
  if named is not None and shares is not None:
    compared = {
      "first": shares[0], "second": shares[1], "gap": shares[0] - shares[1]
    }  # fmt: skip
    result["labels"] = {
      name: label_shares.summarise(
        rows,
        named,
        people=people,
        num_resamples=config.num_resamples,
        seed=config.seed,
      )
      for name, rows in compared.items()
    }
  configuration.write_json(workdir / "eval.json", result)
  win_rates.write(
    workdir,
    result,
    [(chat.text_of(prompt), *both) for prompt, *both in answers],
    [*config.first, *config.second],
  )
  summary.say(
    [win_rates.headline(result["rates"])],
    report=workdir / "report.html",
  )


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  flags.DEFINE_bool("yes", False, "Ask the judge, whatever the estimate says.")
  cli.main(Config, run, yes=lambda: flags.FLAGS.yes)


if __name__ == "__main__":
  main()
