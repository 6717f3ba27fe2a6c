r"""Preferences in, a reward model out.

python -m jaxalign.experiments.train_reward \
      --config=configs/rm_bt_crowd.py --workdir=runs/rm_bt_crowd
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from etils import epath

from jaxalign.algorithms import bradley_terry, mixture, reward_readout
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.experiments import evaluate
from jaxalign.experiments.common import cli, loop, summary
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reports import label_scores, reward_model
from jaxalign.experiments.reward_model import (
  feature_plane,
  mixture_rounds,
  pair_scores,
  recipe_sizes,
  recipes,
  scoring,
)
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, checkpoint


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `train_reward` reads."""

  seed: int
  data: preferences.DataConfig
  model: backbone.BackboneConfig
  recipe: recipes.Recipe
  loss: bradley_terry.PairLossConfig
  optimizer: optimizers.OptimizerConfig
  train: training.TrainConfig
  mesh: meshes.MeshConfig
  eval: pair_scores.EvalConfig


def build(config: Config, mesh: jax.sharding.Mesh) -> training.Stage:
  """The compiled half of the stage: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.

  Returns:
    The stage's step and abstract arguments.

  Raises:
    ValueError: batch, model and mesh do not fit, before anything is compiled.
  """
  train = config.train
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = preferences.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model,
    tokenizer,
    max_length=config.data.max_length,
    num_outputs=len(recipes.outputs_of(config.recipe)),
  )
  model = heads.reward_model(network)
  stage = training.assemble(
    recipes.objective_of(
      config.recipe, config.loss, model, network, batch_size=train.batch_size
    ),
    config.optimizer,
    train,
    model,
    network,
    config.model,
    recipes.batch_shapes(
      config.recipe, train.batch_size, max(config.data.buckets)
    ),
    mesh,
    rules=config.mesh.rules,
    parallel=train.parallel,
    take=recipes.take_of(config.recipe, model, config.optimizer),
  )
  return stage._replace(passes=recipes.passes_of(config.recipe))


def run(config: Config, workdir: epath.Path, *, profile: bool) -> None:
  """Trains, resuming where `workdir` left off, and writes `model/`.

  Every part is safe to repeat: a run that was killed after its last step goes
  straight to the final evaluation and export.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, model/ and, with
      held-out records, eval.json and report.html.
    profile: write a trace of a few steps to `workdir/profile`.
  """
  checkpoint.check_directory(workdir)
  train, data = config.train, config.data
  if train.export == "best" and not data.holds_out:
    raise ValueError(
      "train.export='best' needs data.eval_files or data.eval_fraction"
    )
  mesh = meshes.make_mesh(config.mesh)
  if not recipe_sizes.uncounted(config.recipe):
    build(config, mesh)  # what does not fit ends the run before data is read
  tokenizer = preferences.open_tokenizer(data, config.model.init_from)
  pairs, held_out = preferences.load_splits(data, tokenizer)
  recipe = recipe_sizes.counted(config.recipe, pairs.dataset)
  config = dataclasses.replace(config, recipe=recipe)
  stage = build(config, mesh)
  learned, rows = recipes.training_pairs(
    config.recipe, config.loss, data, pairs
  )
  read = recipes.readout_of(config.recipe)
  scorer = scoring.build(
    stage.network,
    mesh,
    config.mesh.rules,
    config.eval.batch_size,
    max(data.buckets),
  )
  read.num_rewards(stage.network.num_outputs or 0)
  score = lambda params, pairs: scoring.rewards_of(
    scorer, params, pairs, data, tokenizer
  )
  # The last scores of training are those of the evaluation.
  held_out_outputs = loop.remembering(lambda params: score(params, held_out))
  outputs_of = lambda params, pairs: (
    held_out_outputs(params) if pairs is held_out else score(params, pairs)
  )
  rewards_of = lambda params, pairs: np.asarray(read(outputs_of(params, pairs)))
  measure = None
  if held_out is not None:
    measure = lambda params: scoring.quick_scores(rewards_of(params, held_out))
  rounds = None
  if isinstance(config.recipe, mixture.MixtureConfig):
    rounds = mixture_rounds.Rounds(
      config.recipe,
      pairs,
      rewards_of,
      stage,
      num_steps=train.num_steps,
      seed=config.seed,
    )
    stage, measure = rounds.stage(0), rounds.measure_of(held_out)
  source = recipes.with_responses(
    preferences.make_batches(
      data,
      learned,
      tokenizer,
      train.batch_size,
      seed=config.seed,
      shuffle=True,
      rows=rows,
    ),
    config.recipe,
    data,
    tokenizer,
    config.seed,
  )
  pictured = held_out is not None and recipes.pictures_features(config.recipe)
  plane_of = lambda params: feature_plane.measure(
    scorer, params, held_out, data, tokenizer, mesh, config.mesh.rules
  )
  with checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=train.keep_last,
    keep_best=train.keep_best if data.holds_out else 0,
    best_metric="eval/nll",
    digests=train.digests,
  ) as saved:
    if pictured:
      feature_plane.keep_start(
        workdir, stage, config.seed, plane_of, begun=saved.latest() is not None
      )
    if rounds is not None:
      rounds.warm_up(source, train, saved, workdir, prefetch=data.prefetch)
    state, params = loop.fit(
      stage,
      source,
      train,
      saved,
      workdir,
      seed=config.seed,
      prefetch=data.prefetch,
      measure=measure,
      revise=None if rounds is None else rounds.revise,
      profile=profile,
    )
    step = train.num_steps
    if train.export == "best":
      step = saved.best()
      state = training.restore(stage, saved, step, config.seed)
      params = stage.whole(state)
  weights = None if rounds is None else rounds.finish(state, workdir)
  # On every host: rewards and parameters are gathered from all of them.
  reference = preferences.first(data, pairs, train.num_reference, tokenizer)
  calibration = artifact.calibration(rewards_of(params, reference))
  description = _description(config, read, calibration, weights, step)
  training.export(stage, config.model, state, workdir, tokenizer, description)
  if held_out is not None:
    outputs = outputs_of(params, held_out)
    evaluate.write_evaluation(
      workdir,
      {"model": np.asarray(read(outputs))},
      held_out,
      # A bag of words would hold all texts in memory.
      None if data.streaming else pairs,
      config.eval,
      config.seed,
      mixture_weights={"model": weights},
      warnings=pairs.warnings,
      sections=(
        [feature_plane.section(workdir, plane_of(params))] if pictured else []
      ),
      labels={
        "model": label_scores.score(
          description, outputs, held_out.records, config.eval, config.seed
        )
      },
    )
  elif multihost.is_main():
    reward_model.write_unevaluated(workdir, pairs.warnings)
  _say_where(workdir / "model")
  multihost.barrier("train_reward")


def _description(
  config: Config,
  read: reward_readout.Readout,
  calibration: dict[str, list[float]],
  weights: Sequence[float] | None,
  step: int,
) -> artifact.Description:
  """The content of `jaxalign.json`."""
  return artifact.Description(
    kind="reward",
    heads=recipes.outputs_of(config.recipe),
    readout=read.kind,
    risk=read.risk,
    alpha=read.alpha,
    kappa=read.kappa,
    max_length=config.data.max_length,
    calibration=calibration,
    utilities=read.utilities,
    label_cost=recipes.label_cost_of(config.recipe),
    mixture_weights=weights,
    provenance=artifact.provenance(config, step),
  )


def _say_where(model: epath.Path) -> None:
  """Says where the model is and what scores with it, after its evaluation."""
  score = summary.command("score", "score", f"--config.model={model}")
  summary.say(model=model, then=score)


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  flags.DEFINE_bool("profile", False, "Write a trace of a few steps.")
  cli.main(Config, run, resumes=True, profile=lambda: flags.FLAGS.profile)


if __name__ == "__main__":
  main()
