"""Training a reward model: load pairs, build and fit a recipe.

`train_reward` calls these one after the other; `device_probe` and the compile
stage call some of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.data.batching import loader, pair_dataset
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import loop
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import (
  frozen_backbone,
  pair_scores,
  recipe,
  recipes,
  scoring,
)
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact, checkpoint

T = TypeVar("T")

# Key of a recipe or coupling -> the column whose names in the training pairs it
# counts.
COUNTED = {
  "num_users": "annotator",
  "num_sources": "source",
  "num_groups": "group",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """Everything `train_reward` reads.

  Attributes:
    seed: of the initial weights, the order of the data, dropout and resampling.
    data: preference pairs and how they are tokenised.
    model: the pretrained folder or the sizes of a model from scratch.
    recipe: the algorithm, chosen by its `name`.
    loss: how a pair becomes a loss.
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
  recipe: recipes.Config
  loss: bradley_terry.PairLossConfig = bradley_terry.PLAIN
  optimizer: optimizers.OptimizerConfig
  train: training.TrainConfig
  mesh: meshes.MeshConfig = meshes.MeshConfig()
  eval: pair_scores.EvalConfig = pair_scores.EvalConfig()
  coupling: recipe.Coupling | None = None

  def made(self) -> recipe.Recipe:
    """The recipe of this config."""
    return recipes.make(self.recipe, self.loss, self.coupling)


class Loaded(NamedTuple):
  """What `load` gives.

  Attributes:
    tokenizer: of the model.
    pairs: training pairs as they are recorded.
    held_out: held-out pairs, or None.
    learned: training pairs as the recipe sees them.
    rows: which of them are learned from, int [M], None for all.
    texts: those of a frozen backbone, by whose numbers the pairs go; None where
      pairs are tokens.
    source: batches of those numbers, None to be made of the pairs.
  """

  tokenizer: Tokenizer
  pairs: preferences.Pairs
  held_out: preferences.Pairs | None
  learned: preferences.Pairs
  rows: np.ndarray | None
  texts: frozen_backbone.Texts | None = None
  source: loader.Batches | None = None

  @property
  def place(self) -> Callable[[jax.sharding.Sharding], jax.Array] | None:
    """Places the features of all texts, None where tokens are learned from."""
    return None if self.texts is None else self.texts.place


class Trained(NamedTuple):
  """What `fit` gives.

  Attributes:
    state: that is exported.
    params: of the network.
    step: of that state.
    outputs_of: `(params, pairs) -> float32 [N, 2, H]`; the last ones of
      held-out pairs are remembered.
    description: content of `jaxalign.json`.
    sections: further sections of the report on held-out pairs.
  """

  state: Any
  params: Any
  step: int
  outputs_of: Callable[[Any, preferences.Pairs], np.ndarray]
  description: artifact.Description
  sections: recipe.Sections


def is_counted(config: RewardConfig) -> bool:
  """Whether all sizes of a config are known before data is read."""
  head = config.model.trainable == "head"
  return not (
    uncounted(config.recipe)
    or uncounted(config.coupling)
    or (head and config.model.num_texts is None)
  )


def load(config: RewardConfig) -> tuple[RewardConfig, Loaded]:
  """Reads and tokenises the pairs, and makes the recipe's targets of them.

  Args:
    config: the resolved config.

  Returns:
    The config with the sizes that the training pairs decide, and the pairs.

  Raises:
    ValueError: recipe, loss and coupling do not go together; a bad record, by
      FILE:LINE; the pairs lack what the recipe reads.
  """
  config.made()  # what does not go together ends the run before data is read
  data = config.data
  if config.train.export == "best" and not data.holds_out:
    raise ValueError(
      "train.export='best' needs data.eval_files or data.eval_fraction"
    )
  tokenizer = preferences.open_tokenizer(data, config.model.init_from)
  pairs, held_out = preferences.load_splits(
    data, tokenizer, share=config.model.trainable != "head"
  )
  config = dataclasses.replace(
    config,
    recipe=counted(config.recipe, pairs.dataset),
    coupling=counted(config.coupling, pairs.dataset, "coupling"),
  )
  learned, rows = config.made().prepare_pairs(data, pairs)
  return config, Loaded(tokenizer, pairs, held_out, learned, rows)


def frozen_texts(
  config: RewardConfig,
  loaded: Loaded,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
) -> tuple[RewardConfig, Loaded]:
  """With `model.trainable="head"`: texts are passed, and pairs are of numbers.

  Args:
    config: with the sizes of the training pairs.
    loaded: from `load`.
    mesh: devices.
    workdir: gets `features/`, unless the config names another folder.

  Returns:
    Config and pairs for what follows; as they are where tokens are trained on.

  Raises:
    ValueError: model.num_texts is another number, or a feature is not finite.
  """
  if config.model.trainable != "head":
    return config, loaded
  data = config.data
  source = batches(config, loaded)
  datasets = [loaded.pairs.dataset]
  if loaded.held_out is not None:
    datasets.append(loaded.held_out.dataset)
  more = [one.dataset for one in source.members[1:]]
  texts = frozen_backbone.read(
    config.model,
    backbone.decoder_config(
      config.model,
      loaded.tokenizer,
      max_length=data.max_length,
      num_outputs=len(config.made().outputs),
    ),
    [one.sequences for one in (*datasets, *more)],
    loaded.tokenizer,
    workdir=workdir,
    batch_size=config.eval.batch_size,
    buckets=data.buckets,
    mesh=mesh,
    rules=config.mesh.rules,
  )
  if config.model.num_texts not in (None, texts.number):
    raise ValueError(
      f"model.num_texts must be the unique texts' number {texts.number}, got "
      f"{config.model.num_texts}; None counts them"
    )
  held_out = loaded.held_out
  return (
    dataclasses.replace(
      config,
      model=dataclasses.replace(config.model, num_texts=texts.number),
    ),
    loaded._replace(
      pairs=texts.pairs(loaded.pairs),
      learned=texts.pairs(loaded.learned),
      held_out=None if held_out is None else texts.pairs(held_out),
      texts=texts,
      source=texts.batches(source),
    ),
  )


def build(
  config: RewardConfig,
  mesh: jax.sharding.Mesh,
  place: Callable[[jax.sharding.Sharding], jax.Array] | None = None,
) -> training.Stage:
  """The compiled half of `train_reward`: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.
    place: puts the features of all texts on devices, for a head alone.

  Returns:
    The stage's step and abstract arguments.

  Raises:
    ValueError: batch, model and mesh do not fit, before anything is compiled.
  """
  train, chosen = config.train, config.made()
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = preferences.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model,
    tokenizer,
    max_length=config.data.max_length,
    num_outputs=len(chosen.outputs),
  )
  if config.model.trainable == "head":
    network = dataclasses.replace(network, num_texts=config.model.num_texts)
  model = heads.reward_model(network)
  stage = training.assemble(
    chosen.objective(model, network, train.batch_size),
    config.optimizer,
    train,
    model,
    network,
    config.model,
    chosen.batch_shapes(train.batch_size, max(_buckets(config))),
    mesh,
    rules=config.mesh.rules,
    parallel=train.parallel,
    take=chosen.take(model, config.optimizer),
    features=place,
  )
  return stage._replace(passes=chosen.passes)


def _buckets(config: RewardConfig) -> tuple[int, ...]:
  """Padded lengths of a batch's texts, in tokens or in numbers of texts."""
  head = config.model.trainable == "head"
  return frozen_backbone.BUCKETS if head else config.data.buckets


def batches(config: RewardConfig, loaded: Loaded) -> loader.Batches:
  """Batches of a step, with what the recipe learns from beside pairs."""
  if loaded.source is not None:
    return loaded.source
  pairs = preferences.make_batches(
    config.data,
    loaded.learned,
    loaded.tokenizer,
    config.train.batch_size,
    seed=config.seed,
    shuffle=True,
    rows=loaded.rows,
  )
  return config.made().extra_batches(
    pairs, config.data, loaded.tokenizer, config.seed
  )


def fit(
  config: RewardConfig,
  loaded: Loaded,
  stage: training.Stage,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
  *,
  profile: bool,
) -> Trained:
  """Trains from the last checkpoint to the last step.

  Args:
    config: with its sizes counted.
    loaded: from `load`.
    stage: from `build`.
    mesh: devices.
    workdir: gets metrics.jsonl, speed.jsonl and checkpoints/.
    profile: whether to write a trace of a few steps to `workdir/profile`.

  Returns:
    The state to be exported, scored on held-out pairs where it is the last.
  """
  train, chosen = config.train, config.made()
  data = dataclasses.replace(config.data, buckets=_buckets(config))
  build_scorer = lambda network: scoring.build(
    network, mesh, config.mesh.rules, config.eval.batch_size, max(data.buckets)
  )
  scorer = build_scorer(stage.network)
  read = chosen.readout
  read.num_rewards(stage.network.num_outputs or 0)

  def outputs_by(
    scorer: scoring.Stage,
  ) -> Callable[[Any, preferences.Pairs], np.ndarray]:
    def scored(params: Any, pairs: preferences.Pairs) -> np.ndarray:
      return scoring.rewards_of(scorer, params, pairs, data, loaded.tokenizer)

    # The last scores of training are those of the evaluation.
    of_held_out = loop.remembering(
      lambda params: scored(params, loaded.held_out)
    )

    def outputs(params: Any, pairs: preferences.Pairs) -> np.ndarray:
      remembered = pairs is loaded.held_out
      return of_held_out(params) if remembered else scored(params, pairs)

    return outputs

  # What a recipe sees between steps is what it trains; what is written and
  # evaluated may lack the term of the length.
  as_trained = outputs_of = outputs_by(scorer)
  final = frozen_backbone.exported(config.model, stage.network)
  if final != stage.network:
    outputs_of = outputs_by(build_scorer(final))

  hooks = chosen.hooks(
    recipe.Run(
      seed=config.seed,
      train=train,
      data=data,
      mesh=mesh,
      rules=config.mesh.rules,
      tokenizer=loaded.tokenizer,
      pairs=loaded.learned,
      rows=loaded.rows,
      held_out=loaded.held_out,
      stage=stage,
      scorer=scorer,
      rewards_of=lambda params, pairs: np.asarray(
        read(as_trained(params, pairs))
      ),
    )
  )
  stage, source = hooks.first_stage(), batches(config, loaded)
  with checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=train.keep_last,
    keep_best=train.keep_best if data.holds_out else 0,
    best_metric="eval/nll",
    digests=train.digests,
  ) as saved:
    hooks.before(source, saved, workdir)
    state, params = loop.fit(
      stage,
      source,
      train,
      saved,
      workdir,
      seed=config.seed,
      prefetch=data.prefetch,
      measure=hooks.measure(),
      revise=hooks.revise,
      profile=profile,
    )
    step = train.num_steps
    if train.export == "best":
      step = saved.best()
      state = training.restore(stage, saved, step, config.seed)
      params = stage.whole(state)
  weights = hooks.finish(state, workdir)
  # On every host: rewards and parameters are gathered from all of them.
  reference = preferences.first(
    data, loaded.pairs, train.num_reference, loaded.tokenizer
  )
  description = artifact.Description(
    kind="reward",
    heads=chosen.outputs,
    readout=read.kind,
    risk=read.risk,
    alpha=read.alpha,
    kappa=read.kappa,
    max_length=data.max_length,
    calibration=artifact.calibration(
      np.asarray(read(outputs_of(params, reference)))
    ),
    utilities=read.utilities,
    label_cost=chosen.label_cost,
    pooling=stage.network.pooling,
    log_length=config.model.log_length,
    mixture_weights=weights,
    provenance=artifact.provenance(config, step),
  )
  held_out = loaded.held_out is not None
  sections = hooks.report_sections(params, workdir) if held_out else ()
  return Trained(state, params, step, outputs_of, description, sections)


def uncounted(section: Any) -> list[str]:
  """The keys of a section that are to be counted in the training pairs."""
  return [key for key in _sizes(section) if getattr(section, key) is None]


def counted(
  section: T, dataset: pair_dataset.PairDataset, name: str = "recipe"
) -> T:
  """A recipe or coupling with the sizes of its training pairs.

  Args:
    section: the `recipe` or `coupling` section; None stays.
    dataset: training pairs.
    name: of the section, for errors.

  Returns:
    The same with a number where a size was None.

  Raises:
    ValueError: a size of the config is not that of the pairs, or no pair names
      what is counted.
  """
  sizes = {}
  for key in _sizes(section):
    column, given = COUNTED[key], getattr(section, key)
    found = len(getattr(dataset, f"{column}_names"))
    if not found:
      raise ValueError(
        f"{name}.{key} counts the {column}s of the training pairs, and no pair "
        f"has the column {column!r}"
      )
    if given not in (None, found):
      raise ValueError(
        f"{name}.{key} must be the number of {column}s in the training pairs, "
        f"got {given} and {found}; None counts them"
      )
    sizes[key] = found
  return dataclasses.replace(section, **sizes) if sizes else section  # type: ignore[type-var]


def _sizes(section: Any) -> list[str]:
  if section is None:
    return []
  fields = {field.name for field in dataclasses.fields(section)}
  return [key for key in COUNTED if key in fields]
