r"""Direct preference optimisation: policies trained on preference files.

python -m jaxalign.experiments.train_dpo --config=configs/dpo_crowd.py \
    --workdir=runs/dpo_crowd
"""

import dataclasses
import functools
from typing import Any

import jax
from absl import flags
from etils import epath

from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.data.tokenization import encoding
from jaxalign.experiments import evaluate
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.policy import (
  direct_recipes,
  initial_checkpoints,
  pair_likelihood,
)
from jaxalign.experiments.reports import reward_model
from jaxalign.experiments.reward_model import (
  fitting,
  pair_scores,
  recipe,
  scoring,
)
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `train_dpo` reads.

  Attributes:
    seed: of the initial weights, the order of the data, dropout and resampling.
    data: preference pairs and how they are tokenised.
    model: the policy that training starts from, and what is adapted.
    reference: folder of the policy that log-ratios are taken from; None for
      where this one starts.
    reference_cache: folder that keeps the reference's log-probabilities for
      further runs; None for `reference/` in the run's own.
    recipe: the algorithm, chosen by its `name`.
    loss: labels, margins and denoising of a pair.
    optimizer: AdamW and its schedule.
    train: steps, batches, evaluations, checkpoints and the export.
    mesh: devices per axis.
    eval: how held-out pairs are scored.
    coupling: how the rows of a batch are weighed against each other, by source
      ("more") or by group ("group_dro"); None for their mean.
  """

  seed: int = 0
  data: preferences.DataConfig
  model: backbone.BackboneConfig
  reference: str | None = None
  reference_cache: str | None = None
  recipe: direct_recipes.Config
  loss: bradley_terry.PairLossConfig = bradley_terry.PLAIN
  optimizer: optimizers.OptimizerConfig
  train: training.PairSchedule
  mesh: meshes.MeshConfig = meshes.MeshConfig()
  eval: pair_scores.EvalConfig = pair_scores.EvalConfig()
  coupling: recipe.Coupling | None = None

  def made(self) -> recipe.Recipe:
    """The recipe of this config."""
    return direct_recipes.make(self.recipe, self.loss, self.coupling)


def build(config: Config, mesh: jax.sharding.Mesh) -> training.Stage:
  """The compiled half of the stage: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.

  Returns:
    The stage's step and abstract arguments.

  Raises:
    ValueError: batch, model, reference and mesh do not fit, before anything is
      compiled.
  """
  train = config.train
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = preferences.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model, tokenizer, max_length=config.data.max_length, num_outputs=None
  )
  if config.reference is not None:
    initial_checkpoints.check_reference(config.reference, network, tokenizer)
  model = heads.causal_lm(network)
  return fitting.assemble(config, model, network, mesh)


def referred(
  config: Config,
  loaded: fitting.Loaded,
  stage: training.Stage,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
) -> fitting.Loaded:
  """The pairs with what the reference makes of them, read or computed.

  Args:
    config: with its sizes counted.
    loaded: from `fitting.load`.
    stage: from `build`.
    mesh: devices.
    workdir: gets `reference/` where no other folder is named.

  Returns:
    The same with `ref_log_probs`; 0 where the recipe reads no reference.
  """
  data, sets = config.data, [loaded.learned]
  sets += [] if loaded.held_out is None else [loaded.held_out]
  found = [pair_likelihood.with_reference(pairs) for pairs in sets]
  if config.recipe.reward.reads_reference:
    scorer = pair_likelihood.build(
      stage.network,
      mesh,
      config.mesh.rules,
      config.eval.batch_size,
      max(data.buckets),
      lambda log_probs, batch: log_probs,
    )
    kept = config.reference_cache
    folder = workdir / "reference" if kept is None else epath.Path(kept)
    parameters = functools.cache(lambda: _reference(config, scorer))
    made = []
    for number, pairs in enumerate(found):
      score = lambda pairs=pairs: scoring.rewards_of(
        scorer, parameters(), pairs, data, loaded.tokenizer
      )[..., 0]
      name = pair_likelihood.fingerprint(
        (dataclasses.asdict(config.model), config.seed, number),
        config.reference or config.model.init_from,
        data,
        data.train_files + data.eval_files,
        pairs,
        loaded.tokenizer,
      )
      values = pair_likelihood.cached(folder, name, len(pairs.dataset), score)
      made.append(pair_likelihood.with_reference(pairs, values))
    found = made
  return loaded._replace(
    learned=found[0], held_out=found[1] if len(found) > 1 else None
  )


def _reference(config: Config, scorer: scoring.Stage) -> Any:
  """Parameters of the reference policy."""
  start = config.model
  if config.reference is not None:
    start = dataclasses.replace(
      start, init_from=config.reference, architecture=None
    )
  # The key of the policy's own start, see `loop.fit`.
  init_key, _ = jax.random.split(jax.random.key(config.seed))
  return backbone.initial_params(
    start,
    scorer.network,
    heads.causal_lm(scorer.network),
    init_key,
    jax.tree.map(lambda leaf: leaf.sharding, scorer.state),
  )


def fit(
  config: Config,
  loaded: fitting.Loaded,
  stage: training.Stage,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
  *,
  profile: bool,
) -> fitting.Trained:
  """Trains from the last checkpoint to the last step.

  Args:
    config: with its sizes counted.
    loaded: from `referred`.
    stage: from `build`.
    mesh: devices.
    workdir: gets metrics.jsonl, speed.jsonl and checkpoints/.
    profile: whether to write a trace of a few steps to `workdir/profile`.

  Returns:
    The state to be exported, and its scores of held-out pairs where it is the
    last.
  """
  data = config.data
  scorer = pair_likelihood.build(
    stage.network,
    mesh,
    config.mesh.rules,
    config.eval.batch_size,
    max(data.buckets),
    config.recipe.reward.of,
    config.made().copies,
  )
  rewards_of = scoring.outputs_by(
    scorer, data, loaded.tokenizer, loaded.held_out
  )
  hooks = fitting.make_hooks(config, loaded, stage, scorer, mesh, rewards_of)
  state, params, step = recipe.train(
    hooks, fitting.batches(config, loaded), workdir, profile=profile
  )
  description = artifact.Description(
    kind="policy",
    heads=(),
    max_length=data.max_length,
    calibration=None,
    utilities=None,
    mixture_weights=hooks.finish(state, workdir),
    provenance=artifact.provenance(config, step),
  )
  return fitting.Trained(state, params, step, rewards_of, description, ())


def export(
  config: Config,
  loaded: fitting.Loaded,
  stage: training.Stage,
  trained: fitting.Trained,
  workdir: epath.Path,
) -> list[epath.Path]:
  """Writes `model/`, or `policies/NAME/` of each group's policy.

  Args:
    config: the resolved config.
    loaded: for the tokenizer.
    stage: from `build`.
    trained: from `fit`.
    workdir: of the run.

  Returns:
    The folders.
  """
  chosen = config.made()
  if chosen.copies is None:
    given = workdir, loaded.tokenizer, trained.description
    training.export(stage, config.model, trained.state, *given)
    return [workdir / "model"]
  return training.export_copies(
    stage,
    config.model,
    trained.state,
    {f"policies/{name}": trained.description for name in chosen.outputs},
    workdir,
    loaded.tokenizer,
  )


def run(config: Config, workdir: epath.Path, *, profile: bool) -> None:
  """Trains, resuming where `workdir` left off, and writes the policy.

  Args:
    config: the resolved config.
    workdir: gets reference/, metrics.jsonl, speed.jsonl, checkpoints/, model/
      or policies/ and, with held-out records, eval.json and report.html.
    profile: write a trace of a few steps to `workdir/profile`.
  """
  checkpoint.check_directory(workdir)
  mesh = meshes.make_mesh(config.mesh)
  if fitting.is_counted(config):
    build(config, mesh)  # what does not fit ends the run before data is read
  config, loaded = fitting.load(config, encoding.answered)
  stage = build(config, mesh)
  loaded = referred(config, loaded, stage, mesh, workdir)
  trained = fit(config, loaded, stage, mesh, workdir, profile=profile)
  folders = export(config, loaded, stage, trained, workdir)
  _evaluate(config, loaded, trained, workdir)
  summary.say(
    model=", ".join(map(str, folders)),
    then=summary.command("sample", "sample", f"--config.model={folders[0]}"),
  )
  multihost.barrier("train_dpo")


def _evaluate(
  config: Config,
  loaded: fitting.Loaded,
  trained: fitting.Trained,
  workdir: epath.Path,
) -> None:
  """Scores of implicit rewards on held-out pairs, as of a reward model."""
  if loaded.held_out is None:
    if multihost.is_main():
      reward_model.write_unevaluated(workdir, loaded.pairs.warnings)
    return
  # Single responses are no pairs that a baseline could learn from.
  unpaired = config.made().change is not None
  evaluate.write_evaluation(
    workdir,
    {"policy": trained.outputs_of(trained.params, loaded.held_out)},
    loaded.held_out,
    None if config.data.streaming or unpaired else loaded.pairs,
    config.eval,
    config.seed,
    mixture_weights={"policy": trained.description.mixture_weights},
    warnings=loaded.pairs.warnings,
  )


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags(leaves_model=True)
  flags.DEFINE_bool("profile", False, "Write a trace of a few steps.")
  cli.main(Config, run, resumes=True, profile=lambda: flags.FLAGS.profile)


if __name__ == "__main__":
  main()
