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
from jaxalign.data.tokenization import encoding
from jaxalign.data.tokenization.tokenizer import Tokenizer
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
from jaxalign.models.config import READING, DecoderConfig
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import artifact

T = TypeVar("T")
C = TypeVar("C", bound=Any)  # a config with a recipe

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
  outputs_of: scoring.OutputsOf
  description: artifact.Description
  sections: recipe.Sections


def is_counted(config: Any) -> bool:
  """Whether all sizes of a config are known before data is read."""
  head = config.model.trainable == "head"
  return not (
    uncounted(config.recipe)
    or uncounted(config.coupling)
    or (head and config.model.num_texts is None)
  )


def load(
  config: C, tokenise: encoding.Tokenise | None = None
) -> tuple[C, Loaded]:
  """Reads and tokenises the pairs, and makes the recipe's targets of them.

  Args:
    config: the resolved config, of rewards or of a direct recipe.
    tokenise: as of `preferences.load_splits`.

  Returns:
    The config with the sizes that the training pairs decide, and the pairs.

  Raises:
    ValueError: recipe, loss and coupling do not go together; a bad record, by
      FILE:LINE; the pairs lack what the recipe reads.
  """
  config.made().check(config.model)  # ends the run before data is read
  data = config.data
  if config.train.export == "best" and not data.holds_out:
    raise ValueError(
      "train.export='best' needs data.eval_files or data.eval_fraction"
    )
  tokenizer = preferences.open_tokenizer(data, config.model.init_from)
  pairs, held_out = preferences.load_splits(
    data,
    tokenizer,
    tokenise,
    share=config.model.trainable != "head",
    change=config.made().change,
  )
  config = dataclasses.replace(
    config,
    recipe=counted(config.recipe, pairs.dataset),
    coupling=counted(config.coupling, pairs.dataset, "coupling"),
  )
  learned, rows = config.made().learned(data, pairs, tokenizer)
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
      num_outputs=config.made().num_outputs,
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
  train = config.train
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = preferences.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model,
    tokenizer,
    max_length=config.data.max_length,
    num_outputs=config.made().num_outputs,
  )
  config.made().check(config.model)
  if config.model.trainable == "head":
    network = dataclasses.replace(network, num_texts=config.model.num_texts)
  return assemble(config, heads.reward_model(network), network, mesh, place)


def assemble(
  config: Any,
  model: heads.Model,
  network: DecoderConfig,
  mesh: jax.sharding.Mesh,
  place: Callable[[jax.sharding.Sharding], jax.Array] | None = None,
) -> training.Stage:
  """The step in which a network learns by the config's recipe.

  Args:
    config: with a recipe, of rewards or of a direct recipe.
    model: the network as pure functions.
    network: its description.
    mesh: devices, real or abstract.
    place: as of `build`.

  Returns:
    The stage's step and abstract arguments.
  """
  train, chosen = config.train, config.made()
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
    copies=chosen.copies,
    schedule_steps=chosen.schedule_steps,
    features=place,
  )
  return stage._replace(passes=chosen.passes)


def _buckets(config: Any) -> tuple[int, ...]:
  """Padded lengths of a batch's texts, in tokens or in numbers of texts."""
  head = config.model.trainable == "head"
  return frozen_backbone.BUCKETS if head else config.data.buckets


def batches(config: Any, loaded: Loaded) -> loader.Batches:
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
  chosen = config.made()
  data = dataclasses.replace(config.data, buckets=_buckets(config))
  given = mesh, config.mesh.rules, config.eval.batch_size, max(data.buckets)
  build_scorer = lambda network: chosen.scorer(
    stage._replace(network=network), *given
  )
  scorer = build_scorer(stage.network)
  read = chosen.readout
  read.num_rewards(stage.network.num_outputs or 0)
  learned = loaded.tokenizer, loaded.held_out
  # What a recipe sees between steps is what it trains; what is written and
  # evaluated may lack the term of the length.
  as_trained = outputs_of = scoring.outputs_by(scorer, data, *learned)
  final = frozen_backbone.exported(config.model, stage.network)
  if final != stage.network:
    outputs_of = scoring.outputs_by(build_scorer(final), data, *learned)
  hooks = make_hooks(
    config,
    loaded,
    stage,
    scorer,
    mesh,
    lambda params, pairs: np.asarray(read(as_trained(params, pairs))),
  )
  state, params, step = recipe.train(
    hooks, batches(config, loaded), workdir, profile=profile
  )
  weights = hooks.finish(state, workdir)
  # On every host: rewards and parameters are gathered from all of them.
  reference = preferences.first(
    data, loaded.pairs, config.train.num_reference, loaded.tokenizer
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
    **{name: getattr(final, name) for name in READING},
    mixture_weights=weights,
    provenance=artifact.provenance(config, step),
  )
  held_out = loaded.held_out is not None
  sections = hooks.report_sections(params, workdir) if held_out else ()
  return Trained(state, params, step, outputs_of, description, sections)


def make_hooks(
  config: Any,
  loaded: Loaded,
  stage: training.Stage,
  scorer: scoring.Stage,
  mesh: jax.sharding.Mesh,
  rewards_of: scoring.OutputsOf,
) -> recipe.Hooks:
  """What surrounds the steps of a run by the config's recipe.

  Args:
    config: with its sizes counted, of rewards or of a direct recipe.
    loaded: from `load`.
    stage: the built step.
    scorer: rewards of the same network.
    mesh: devices.
    rewards_of: `(params, pairs) -> float32 [N, 2, K]`.

  Returns:
    The recipe's hooks.
  """
  run = recipe.Run(
    seed=config.seed,
    train=config.train,
    data=dataclasses.replace(config.data, buckets=_buckets(config)),
    mesh=mesh,
    rules=config.mesh.rules,
    tokenizer=loaded.tokenizer,
    pairs=loaded.learned,
    rows=loaded.rows,
    held_out=loaded.held_out,
    stage=stage,
    scorer=scorer,
    rewards_of=rewards_of,
  )
  return config.made().hooks(run)


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
