"""Reward source of a run: the `source` section of a config, opened."""

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np

from jaxalign import losses
from jaxalign.data.llm_labels.prompts import ConnectionConfig, check_url
from jaxalign.data.records import reader, sources
from jaxalign.data.synthetic import crowd, oracle
from jaxalign.experiments.reward_model import scoring
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact
from jaxalign.runtime.reward_sources import (
  base,
  ensemble,
  gated,
  http,
  trainer_functions,
)
from jaxalign.runtime.reward_sources import judge as judge_source
from jaxalign.runtime.reward_sources import labels as source_labels

# What the labels of a synthetic crowd are worth, as those of DPRM.
CROWD_LABELS = source_labels.Labels(
  losses.HELPFUL_HARMLESS_LABELS, (1.0, 0.5, -1.0, -1.0, -1.5, -3.0)
)


@dataclasses.dataclass(frozen=True)
class RewardSourceConfig:
  """Where rewards come from.

  Exactly one of models, function, url, judge and crowd is set.

  Attributes:
    models: reward models' folders, whose outputs are put side by side; of
      other programs too, which have no calibration.
    function: `module:function` of your own, `(prompts, responses)` to rewards
      [B] or [B, K]; further parameters are columns of the data by name, and a
      function for TRL, of `completions`, is taken too; it raises OSError for
      what may pass.
    url: of a server of rewards, such as the `serve` stage, up to and with the
      version: http://localhost:8000/v1.
    judge: a chat model that rates each response, its rating the reward; its
      `budget` must be set.
    crowd: a synthetic crowd, NAME[,KNOB=VALUE...], whose true utilities are the
      rewards; one with labels has the shares of the whole crowd for each.
    names: of the outputs, in place of the models' own; a function needs them
      for more than one output.
    calibrated: measure rewards of models and of a crowd in standard deviations
      from the mean of their reference responses, of a crowd those of its
      training split; what a function or a server gives is taken as it is.
    calibrate_on: files of records, read as those of `data.eval_files`, on whose
      responses the rewards of any source are measured instead: its mean
      becomes 0 and its standard deviation 1.
    calibrate_limit: records read of them, from the first on.
    risk: what stands for the distribution that a model predicts: its "mean",
      its "cvar" (mean of its worst share `alpha`) or "mean_std" (mean minus
      `kappa` deviations); None for what each model was trained with, and for
      models of plain rewards.
    alpha: share in (0, 1], with "cvar" alone.
    kappa: >= 0, with "mean_std" alone.
    pessimism: k >= 0: the models are an ensemble of one reward, and what counts
      is their mean less k standard deviations between them; 0 is the mean. None
      has them side by side.
    dtype: compute type of models, "float32" or "bfloat16".
    batch_size: texts per forward pass over all devices, or per request.
    buckets: padded lengths in tokens, one compilation each; the largest is the
      longest text. Those above a model's positions are dropped.
    connection: how patiently a server is asked, and how often a function.
  """

  models: tuple[str, ...] = ()
  function: str | None = None
  url: str | None = None
  judge: judge_source.RatingConfig | None = None
  crowd: str | None = None
  names: tuple[str, ...] = ()
  calibrated: bool = True
  calibrate_on: tuple[str, ...] = ()
  calibrate_limit: int = 256
  risk: str | None = None
  alpha: float | None = None
  kappa: float | None = None
  pessimism: float | None = None
  dtype: str = "float32"
  batch_size: int = 64
  buckets: tuple[int, ...] = (64, 128)
  connection: ConnectionConfig = ConnectionConfig()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, unless there is exactly one origin."""
    origins = {
      "models": self.models or None,
      "function": self.function,
      "url": self.url,
      "judge": self.judge,
      "crowd": self.crowd,
    }
    given = [name for name, value in origins.items() if value is not None]
    if len(given) != 1:
      raise ValueError(
        "exactly one of models, function, url, judge and crowd must be set, "
        f"got {', '.join(given) or 'none'}"
      )
    if self.url is not None:
      check_url(self.url)
    if self.judge is not None and self.judge.budget is None:
      raise ValueError(
        "judge.budget must be the dollars that may be spent, got None: every "
        "response is a question for each criterion, as long as the run lasts; "
        "0 is right for an endpoint of your own, with no prices"
      )
    if self.pessimism is not None:
      self._check_ensemble(self.pessimism)
    checks.at_least(
      1, batch_size=self.batch_size, calibrate_limit=self.calibrate_limit
    )

  def _check_ensemble(self, pessimism: float) -> None:
    """Raises ValueError unless there are models, and one unit for them."""
    checks.at_least(0, pessimism=pessimism)
    if len(self.models) < 2:
      raise ValueError(
        "pessimism takes the spread between two or more `models`, got "
        f"{len(self.models)}: name more, or leave it None"
      )
    if not self.calibrated and not self.calibrate_on:
      raise ValueError(
        "pessimism compares rewards of several models, whose raw rewards have "
        "no common unit: calibrated must be True, or calibrate_on name a file"
      )


def open_source(
  config: RewardSourceConfig,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...] = (),
  *,
  crowd_seed: int = 0,
) -> base.RewardSource:
  """Opens what the section names.

  Args:
    config: the section.
    mesh: devices that models are laid over.
    rules: overrides of the logical table.
    crowd_seed: draws the responses that calibrate a crowd.

  Returns:
    The source.

  Raises:
    ValueError: a folder, function, crowd or name that is not there or does not
      fit.
    RewardError: no server answers at the url.
  """
  connection, batch_size = config.connection, config.batch_size
  calibrated = config.calibrated and not config.calibrate_on
  found: list[base.RewardSource] = []
  for name in config.models:
    folder = sources.expand_variables(name)
    found.append(
      gated.load_source(
        folder,
        scoring.load_network(folder, config.dtype),
        mesh=mesh,
        rules=rules,
        batch_size=batch_size,
        buckets=config.buckets,
        calibrated=calibrated,
        risk=config.risk,
        alpha=config.alpha,
        kappa=config.kappa,
      )
    )
  names = config.names
  if config.function is not None:
    found.append(
      base.FunctionSource(
        base.resolve_function(config.function),
        names=names if names else ("reward",),
        max_attempts=connection.max_attempts,
        backoff_s=connection.backoff_s,
        origin=config.function,
      )
    )
  if config.url is not None:
    found.append(
      http.EndpointSource(config.url, connection, batch_size=batch_size)
    )
  if config.judge is not None:
    found.append(judge_source.JudgeSource(config.judge, names=names))
  if config.crowd is not None:
    people = crowd.crowd_of(config.crowd, seed=crowd_seed)
    found.append(
      base.FunctionSource(
        oracle.oracle_rewards(people, calibrate=calibrated),
        names=people.groups,
        mixture_weights=people.shares,
        origin=f"the crowd {config.crowd}",
        labels=CROWD_LABELS if people.labels else None,
        label_function=oracle.oracle_labels(people) if people.labels else None,
      )
    )
  if config.pessimism is not None:
    if config.calibrate_on:
      found = [_measured_on(member, config) for member in found]
    return ensemble.EnsembleSource(found, config.pessimism, names=names)
  source = base.JoinedSource(found, names=names)
  if config.calibrate_on:
    return _measured_on(source, config)
  return source


def _measured_on(
  source: base.RewardSource, config: RewardSourceConfig
) -> base.RewardSource:
  """The source in units of its spread over the responses of some files."""
  stream = reader.RecordStream(config.calibrate_on, drop_unusable=False)
  records = list(itertools.islice(stream, config.calibrate_limit))
  prompts = [record.prompt for record in records for _ in record.responses]
  responses = [text for record in records for text in record.responses]
  size = config.batch_size
  parts = [
    source(prompts[at : at + size], responses[at : at + size])
    for at in range(0, len(prompts), size)
  ]
  fit = artifact.calibration(np.concatenate(parts)[:, None])
  return base.MeasuredSource(source, fit["mean"], fit["std"])


def functions_of(**section: Any) -> list[trainer_functions.RewardFunction]:
  """Reward functions for another program's trainer, on this process's devices.

  Args:
    **section: fields of `RewardSourceConfig`, such as `models=("RUN/model",)`.

  Returns:
    One function per output, see `trainer_functions.reward_functions`.

  Raises:
    ValueError, RewardError: as `open_source`.
  """
  source = open_source(
    RewardSourceConfig(**section), meshes.make_mesh(meshes.MeshConfig())
  )
  return trainer_functions.reward_functions(source)
