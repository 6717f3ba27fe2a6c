r"""Pipeline of stages: all that a config names, resumed, with one page.

python -m jaxalign.experiments.pipeline --config=configs/pipeline_crowd.py \
    --workdir=runs/pipeline_crowd --config.crowd_seed=1
"""

import ast
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from jaxalign.experiments import (
  best_of_n,
  denoise,
  evaluate,
  reward_bench,
  sample,
  score,
  sft,
  train_dpo,
  train_policy,
  train_reward,
  train_tokenizer,
  win_rates,
)
from jaxalign.experiments.common import (
  cli,
  command_line,
  config_changes,
  resume,
  summary,
)
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import fairness
from jaxalign.experiments.policy import rounds as policy_rounds
from jaxalign.experiments.policy.fairness import FairnessConfig
from jaxalign.experiments.reports import pipeline
from jaxalign.ops import checks
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import workdir_lock
from jaxalign.runtime.plots import html_report

log = logging.getLogger("jaxalign")

FINISHED = "finished.json"


class Kind(NamedTuple):
  """A stage that a step may run."""

  config: type[Any]
  run: Callable[[Any, epath.Path], None]
  resumes: bool = False


STAGES = {
  "best_of_n": Kind(best_of_n.Config, best_of_n.run),
  "denoise": Kind(denoise.Config, denoise.run, resumes=True),
  "evaluate": Kind(evaluate.Config, evaluate.run),
  "reward_bench": Kind(reward_bench.Config, reward_bench.run),
  "sample": Kind(sample.Config, sample.run, resumes=True),
  "score": Kind(score.Config, score.run),
  "sft": Kind(sft.Config, sft.run, resumes=True),
  "train_dpo": Kind(
    train_dpo.Config,
    lambda config, workdir: train_dpo.run(config, workdir, profile=False),
    resumes=True,
  ),
  "train_policy": Kind(train_policy.Config, train_policy.run, resumes=True),
  "train_reward": Kind(
    train_reward.Config,
    lambda config, workdir: train_reward.run(config, workdir, profile=False),
    resumes=True,
  ),
  "train_tokenizer": Kind(train_tokenizer.Config, train_tokenizer.run),
  "win_rates": Kind(win_rates.Config, win_rates.run),
}


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """One step of the pipeline.

  Attributes:
    name: of its folder in the workdir.
    stage: a key of `STAGES`.
    config: FILE.py[:variant] of the stage.
    changes: "KEY=VALUE" each, as `--config.KEY=VALUE` on the command line;
      {NAME} in a value is the folder of an earlier step.
  """

  name: str
  stage: str
  config: str
  changes: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for an unknown stage or a torn change."""
    checks.one_of(STAGES, stage=self.stage)
    for change in self.changes:
      if "=" not in change:
        raise ValueError(f"changes must be KEY=VALUE, got {change!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `pipeline` reads.

  Attributes:
    seed: of every step.
    crowd_seed: of every step's synthetic sources.
    steps: in the order they run.
    fairness: how the policies among them are compared, or None.
    rounds: which policies are rounds of one, or None.
  """

  seed: int = 0
  crowd_seed: int = 0
  steps: tuple[StepConfig, ...]
  fairness: FairnessConfig | None = None
  rounds: policy_rounds.RoundsConfig | None = None

  def __post_init__(self) -> None:
    """Raises ValueError for two steps of one name, or a name that is none."""
    names = [step.name for step in self.steps]
    if len({*names}) < len(names) or not names:
      raise ValueError(f"steps must have different names, got {names}")
    for section in (self.fairness, self.rounds):
      for name in () if section is None else section.policies:
        checks.one_of(names, policies=name)


def resolve(config: Config, step: StepConfig, workdir: epath.Path) -> Any:
  """The config of a step's stage.

  Args:
    config: of the pipeline.
    step: one of its steps.
    workdir: of the pipeline.

  Returns:
    The stage's dataclass.

  Raises:
    ValueError: no such file, variant, key or earlier step.
  """
  path, _, variant = step.config.partition(":")
  try:
    made = command_line.load_file(path, variant)
  except ValueError as error:
    raise ValueError(f"steps: {step.name}: {error}") from error
  kind = STAGES[step.stage].config
  changes = [change.partition("=")[::2] for change in step.changes]
  made = command_line.completed(kind, made, changes)
  if "seed" in made:  # `score` draws nothing
    made.seed = config.seed
  # `sample` reads its sources without a section.
  for section in (made, made.get("data", {})):
    if "crowd_seed" in section:
      section.crowd_seed = config.crowd_seed
  folders = {}
  for earlier in config.steps:
    if earlier.name == step.name:
      break
    folders[earlier.name] = str(workdir / earlier.name)
  for key, text in changes:
    try:
      text = text.format_map(folders)
    except (KeyError, ValueError, IndexError) as error:
      raise ValueError(
        f"steps: {step.name}: '{key}={text}' names no earlier step; there are: "
        f"{', '.join(folders) or 'none'}"
      ) from error
    if not command_line.is_reached(made, key):
      reason = command_line.unreached(key, path, kind)
      raise ValueError(f"steps: {step.name}: {reason}")
    _set(made, key, text)
  return configuration.to_dataclass(kind, made, path=step.name)


def _set(made: ml_collections.ConfigDict, key: str, text: str) -> None:
  """Sets a dotted key from text, of whatever type that is."""
  *sections, last = key.split(".")
  at = functools.reduce(lambda section, name: section[name], sections, made)
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = text
  with at.ignore_type():
    at[last] = value


def check(
  config: Config, workdir: epath.Path
) -> list[tuple[StepConfig, Any, float | None]]:
  """Every step with its config and the seconds it took, if it is finished.

  All of them before the first: a mistyped key of the last step costs no hour.

  Args:
    config: the resolved config.
    workdir: of the pipeline.

  Raises:
    ValueError: as `run`.
  """
  steps = []
  for step in config.steps:
    folder, one = workdir / step.name, resolve(config, step, workdir)
    seconds = _finished(folder, one)
    if seconds is None:
      resume.check(one, folder, resumes=STAGES[step.stage].resumes)
    steps.append((step, one, seconds))
  return steps


def run(config: Config, workdir: epath.Path) -> None:
  """Runs what is not finished, each step as by itself, then writes the page.

  Args:
    config: the resolved config.
    workdir: gets a folder per step and report.html.

  Raises:
    ValueError: a step is finished, or begun, with another config than it has
      now.
  """
  for step, one, seconds in check(config, workdir):
    folder = workdir / step.name
    if seconds is not None:
      log.info("%s: finished before, %.0f s", step.name, seconds)
      continue
    log.info("%s: %s in %s", step.name, step.stage, folder)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with (
      workdir_lock.held(folder, is_main=multihost.is_main()),
      summary.as_a_step(),
      html_report.part_of("whole pipeline", workdir),
    ):
      stage = STAGES[step.stage]
      if multihost.is_main():
        resume.begin(one, folder, resumes=stage.resumes)
      multihost.barrier(f"{step.name} begins")
      stage.run(one, folder)
      multihost.barrier(step.name)
    if multihost.is_main():
      took = {
        "config": dataclasses.asdict(one),
        "seconds": time.perf_counter() - start,
      }
      configuration.write_json(folder / FINISHED, took)
  if multihost.is_main():
    seconds = {
      step.name: seconds for step, _, seconds in check(config, workdir)
    }
    found = rounds = None
    if config.fairness is not None:
      found = fairness.compare(workdir, config.fairness)
      configuration.write_json(workdir / "fairness.json", found)
    if config.rounds is not None:
      rounds = policy_rounds.trace(workdir, config.rounds)
      configuration.write_json(workdir / "rounds.json", rounds)
    pipeline.write(workdir, config.steps, seconds, found, rounds)
    summary.say(report=workdir / "report.html")


def _finished(folder: epath.Path, config: Any) -> float | None:
  """Seconds that a finished step took, or None if it is not finished."""
  file = folder / FINISHED
  if not file.exists():
    return None
  content = json.loads(file.read_text())
  try:
    then = config_changes.resolved(type(config), content["config"])
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"{file} is not of this stage and version ({error}); use a new --workdir"
    ) from error
  changes = config_changes.differences(then, dataclasses.asdict(config))
  if changes:
    key, old, new = changes[0]
    raise ValueError(
      f"{folder} was finished with another config: {key} was {old!r} and is "
      f"{new!r}; use a new --workdir, or remove that folder to repeat the step"
    )
  return float(content["seconds"])


def main() -> None:
  """Runs the stages from the command line."""
  cli.define_flags()
  cli.main(Config, run, check=check)


if __name__ == "__main__":
  main()
