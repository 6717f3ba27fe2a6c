"""Recipe object: everything that tells one reward-learning algorithm apart.

A recipe's module has a `make(config, loss, coupling) -> Recipe`; `recipes` is
the table of them. The defaults are those of Bradley-Terry, so a recipe names
only what it does otherwise. What one step's program cannot do, such as a pass
over all pairs, is a method of its `Hooks`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import (
  bradley_terry,
  group_dro,
  more,
  reward_readout,
  row_loss,
  update,
)
from jaxalign.algorithms.optimizer import OptimizerConfig
from jaxalign.algorithms.train_state import TrainState
from jaxalign.data.batching import loader
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import loop
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import ensembles, scoring
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.runtime.io import checkpoint
from jaxalign.runtime.plots import html_report
from jaxalign.runtime.profiling import memory

Coupling = more.MoreConfig | group_dro.GroupDroConfig
Sections = Sequence[html_report.Figure]


class Run(NamedTuple):
  """A built run, as its hooks see it.

  Attributes:
    seed: of parameters, order and dropout.
    train: the `train` section.
    data: the `data` section.
    mesh: devices.
    rules: overrides of the logical table.
    tokenizer: of the model.
    pairs: training pairs as the recipe sees them.
    rows: which of them are learned from, int [M], None for all.
    held_out: held-out pairs, or None.
    stage: the built step.
    scorer: rewards of the same network.
    rewards_of: `(params, pairs) -> float32 [N, 2, K]`.
  """

  seed: int
  train: training.PairSchedule
  data: preferences.DataConfig
  mesh: jax.sharding.Mesh
  rules: tuple[tuple[str, str | None], ...]
  tokenizer: Tokenizer
  pairs: preferences.Pairs
  rows: np.ndarray | None
  held_out: preferences.Pairs | None
  stage: training.Stage
  scorer: scoring.Stage
  rewards_of: scoring.OutputsOf


class Hooks:
  """What surrounds the steps of one run; by default held-out scores alone."""

  def __init__(self, run: Run) -> None:
    self.run = run

  def first_stage(self) -> training.Stage:
    """The stage whose `init` is the state before the first step."""
    return self.run.stage

  def measure(self) -> loop.Measure | None:
    """`params -> scores` on held-out pairs for the curve, None without any."""
    run = self.run
    if run.held_out is None:
      return None
    return lambda params: scoring.quick_scores(
      run.rewards_of(params, run.held_out)
    )

  def before(
    self,
    source: loader.Batches,
    saved: checkpoint.Checkpoints,
    workdir: epath.Path,
  ) -> None:
    """Once before the loop, also in a run that resumes; nothing by default."""

  def revise(
    self, step: int, state: TrainState
  ) -> tuple[TrainState, dict[str, float]]:
    """After each step and before its checkpoint; see `loop.Revise`."""
    del step
    return state, {}

  def finish(
    self, state: TrainState, workdir: epath.Path
  ) -> tuple[float, ...] | None:
    """Once with the state to be exported; the shares of its heads, or None."""
    del state, workdir
    return None

  def report_sections(self, params: Any, workdir: epath.Path) -> Sections:
    """Further sections of the report on held-out pairs."""
    del params, workdir
    return ()


def train(
  hooks: Hooks,
  source: loader.Batches,
  workdir: epath.Path,
  *,
  profile: bool,
) -> tuple[TrainState, Any, int]:
  """Trains from the last checkpoint to the state that is exported.

  Args:
    hooks: of the run.
    source: batches of a step.
    workdir: gets metrics.jsonl, speed.jsonl and checkpoints/.
    profile: whether to write a trace of a few steps to `workdir/profile`.

  Returns:
    That state, the network's parameters in it, and its step: the last, or the
    best on held-out pairs where `train.export` says so.
  """
  run = hooks.run
  schedule, stage = run.train, hooks.first_stage()
  keep_best = schedule.keep_best if run.data.holds_out else 0
  with training.checkpoints(workdir, schedule, keep_best) as saved:
    hooks.before(source, saved, workdir)
    state, params = loop.fit(
      stage,
      source,
      schedule,
      saved,
      workdir,
      seed=run.seed,
      prefetch=run.data.prefetch,
      measure=hooks.measure(),
      revise=hooks.revise,
      profile=profile,
    )
    step = schedule.num_steps
    if schedule.export == "best":
      step = saved.best()
      state = training.restore(stage, saved, step, run.seed)
      params = stage.whole(state)
  return state, params, step


def _at_the_parameters(
  model: heads.Model, optimizer: OptimizerConfig
) -> update.Take:
  del model, optimizer
  return update.at_the_parameters


def _all_pairs(
  data: preferences.DataConfig, pairs: preferences.Pairs
) -> tuple[preferences.Pairs, np.ndarray | None]:
  del data
  return pairs, None


def _pairs_alone(
  pairs: loader.Batches,
  data: preferences.DataConfig,
  tokenizer: Tokenizer,
  seed: int,
) -> loader.Batches:
  del data, tokenizer, seed
  return pairs


@dataclasses.dataclass(frozen=True)
class Recipe:
  """An algorithm of reward learning, ready to be built.

  Attributes:
    objective: `(model, network, batch_size) -> Objective`, what training
      optimises.
    outputs: names of what the model puts out.
    readout: how outputs are read as rewards.
    label_cost: distance between the labels of a label model, None of others.
    take: `(model, optimizer section) -> Take`, where a step takes its gradient.
    copies: K networks trained side by side, each with one of the outputs; None
      for one that has them all.
    schedule_steps: steps of one schedule of the learning rate, where hooks let
      it begin anew; None for those of the run.
    passes: what a step does with each array of tokens, for counting FLOPs.
    batch_shapes: `(batch_size, length) -> shapes` of a batch.
    change: `records -> records` of training, what pairs are made of where they
      are not rankings taken apart; None for that.
    prepare_pairs: `(data section, all training pairs) -> (pairs as the recipe
      sees them, rows learned from or None for all)`.
    add_views: `(data section, pairs as the recipe sees them, tokenizer) ->
      pairs` with other texts of the responses; None for none.
    extra_batches: `(batches of pairs, data section, tokenizer, seed) ->
      batches` with what is learned from besides.
    hooks: what surrounds the steps of a run.
  """

  objective: Callable[[heads.Model, DecoderConfig, int], update.Objective]
  outputs: tuple[str, ...] = ("reward",)
  readout: reward_readout.Readout = reward_readout.PLAIN
  label_cost: tuple[tuple[float, ...], ...] | None = None
  take: Callable[[heads.Model, OptimizerConfig], update.Take] = (
    _at_the_parameters
  )
  copies: int | None = None
  schedule_steps: int | None = None
  passes: memory.Passes = dataclasses.field(
    default_factory=lambda: memory.TRAINING
  )
  batch_shapes: Callable[[int, int], dict[str, loader.ArraySpec]] = (
    loader.pair_shapes
  )
  change: preferences.Change | None = None
  prepare_pairs: Callable[
    [preferences.DataConfig, preferences.Pairs],
    tuple[preferences.Pairs, np.ndarray | None],
  ] = _all_pairs
  add_views: (
    Callable[
      [preferences.DataConfig, preferences.Pairs, Tokenizer], preferences.Pairs
    ]
    | None
  ) = None
  extra_batches: Callable[..., Any] = _pairs_alone
  hooks: Callable[[Run], Hooks] = Hooks

  @property
  def num_outputs(self) -> int:
    """What each network puts out."""
    return len(self.outputs) if self.copies is None else 1

  def learned(
    self,
    data: preferences.DataConfig,
    pairs: preferences.Pairs,
    tokenizer: Tokenizer,
  ) -> tuple[preferences.Pairs, np.ndarray | None]:
    """The pairs as the recipe sees them, with their views, and which count.

    Args:
      data: the `data` section.
      pairs: all training pairs.
      tokenizer: of the model.
    """
    found, rows = self.prepare_pairs(data, pairs)
    if self.add_views is not None:
      found = self.add_views(data, found, tokenizer)
    return found, rows

  def scorer(
    self,
    trained: training.Stage,
    mesh: jax.sharding.Mesh,
    rules: tuple[tuple[str, str | None], ...],
    batch_size: int,
    length: int,
  ) -> scoring.Stage:
    """Rewards of one batch under what is trained: one network, or its copies.

    Args:
      trained: the built step.
      mesh: devices, real or abstract.
      rules: overrides of the logical table.
      batch_size: pairs per forward over all devices.
      length: tokens of the largest bucket.
    """
    given = mesh, rules, batch_size, length
    if self.copies is None:
      return scoring.build(trained.network, *given)
    return ensembles.score_stage(trained, *given, at_once=self.copies)

  def check(self, model: backbone.BackboneConfig) -> None:
    """Raises ValueError where the `model` section does not go with it."""
    if self.copies is not None and model.trainable == "head":
      raise ValueError(
        "recipe.separate does not go with model.trainable='head', whose heads "
        "on frozen features have nothing in common already: leave out separate"
      )
    if self.add_views is not None and model.trainable == "head":
      raise ValueError(
        "recipe.augmentation='back_translation' does not go with "
        "model.trainable='head', which passes each text once: train more than "
        "the head"
      )


Forward = Callable[[update.Params, update.Batch], bradley_terry.PairOutputs]


def _reward_forward(model: heads.Model, network: DecoderConfig) -> Forward:
  return bradley_terry.pair_forward(model.apply, dropout=network.dropout > 0)


def coupled(
  rows: Callable[[], row_loss.RowLoss],
  coupling: Coupling | None,
  forward: Callable[[heads.Model, DecoderConfig], Forward] = _reward_forward,
) -> Callable[[heads.Model, DecoderConfig, int], update.Objective]:
  """`Recipe.objective` of rows under a coupling.

  Args:
    rows: makes what each row costs, once sizes are counted.
    coupling: how rows are weighed, None for their mean.
    forward: makes what gives the rewards of pairs, those of a reward model by
      default.

  Returns:
    `(model, network, batch_size) -> Objective`.
  """

  def objective(
    model: heads.Model, network: DecoderConfig, batch_size: int
  ) -> update.Objective:
    made = rows()
    return row_loss.couple(
      forward(model, network),
      made,
      row_loss.mean(made)
      if coupling is None
      else coupling.couple(
        made, batch_size=batch_size, num_features=network.num_features
      ),
    )

  return objective


def refuse_other_losses(name: str, loss: bradley_terry.PairLossConfig) -> None:
  """Raises ValueError where `loss` is changed and the recipe does not read it.

  Args:
    name: of the recipe.
    loss: the `loss` section.
  """
  if loss != bradley_terry.PLAIN:
    raise ValueError(
      f"recipe {name!r} has a loss of its own: loss must be "
      f"{bradley_terry.PLAIN}, got {loss}; leave the section as it is, or take "
      "a recipe that learns from pairs"
    )


class Entry(NamedTuple):
  """An entry of the table of recipes.

  Attributes:
    config: dataclass of the `recipe` section.
    make: `(config, loss, coupling) -> Recipe`.
    couplings: names of those that the recipe goes with.
    why: it goes with no others.
    plain: the recipe that goes with all.
  """

  config: type
  make: Callable[..., Recipe]
  couplings: tuple[str, ...] = ("more", "group_dro")
  why: str = "there are no others"
  plain: str = "bradley_terry"

  def check(self, name: str, coupling: str) -> None:
    """Raises ValueError where the recipe does not go with a coupling."""
    if coupling not in self.couplings:
      names = " or ".join([*map(repr, self.couplings), "None"])
      raise ValueError(
        f"recipe {name!r} does not go with coupling {coupling!r}, as "
        f"{self.why}: coupling must be {names}; change it, or take recipe "
        f"{self.plain!r} with {coupling!r}"
      )
