"""Scoring pairs with a reward model: what evaluation and scoring share."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.algorithms import bradley_terry, reward_readout
from jaxalign.data.batching import loader
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import loop
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.datasets import preferences
from jaxalign.models import activations, heads
from jaxalign.models.config import READING, DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, filesystem, progress_bar
from jaxalign.runtime.profiling import memory
from jaxalign.runtime.reward_sources import model as model_rewards

# Arrays of a batch whose second axis is that of a pair's responses.
PER_RESPONSE = frozenset(
  ("tokens", "mask", "prompt_lengths", "response", "ref_log_probs")
)

# `(params, pairs) -> float32 [N, 2, K]`
OutputsOf = Callable[[Any, preferences.Pairs], np.ndarray]


class Stage(NamedTuple):
  """The compiled half of `evaluate` and `score`, and of held-out scores.

  Attributes:
    step: jitted `(params, batch) -> (rewards [B, N, K], index [B], where [B])`,
      the same on every host.
    state: abstract parameters with shardings.
    batch: abstract batch of the largest bucket with shardings.
    network: the decoder's description.
    num_rewards: K.
    passes: what a step does with the batch's tokens, for counting FLOPs.
  """

  step: Callable[..., Any]
  state: Any
  batch: dict[str, jax.ShapeDtypeStruct]
  network: DecoderConfig
  num_rewards: int
  passes: memory.Passes = memory.FORWARD

  def lower(self) -> jax.stages.Lowered:
    """The step for its abstract arguments, ready to compile."""
    return self.step.lower(self.state, self.batch)

  def programs(self) -> tuple[memory.Program, ...]:
    """What the compile stage compiles: the forward pass over a batch."""
    forward = memory.program_of(
      self.network,
      self.batch,
      name="forward",
      lower=self.lower,
      parts={"parameters": self.state},
      passes=self.passes,
    )
    return (forward,)


def build(
  network: DecoderConfig,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
  batch_size: int,
  length: int,
  read: reward_readout.Wide = reward_readout.PLAIN,
) -> Stage:
  """A stage that scores batches with one reward model.

  Args:
    network: the model's description.
    mesh: devices, real or abstract.
    rules: overrides of the logical table.
    batch_size: pairs per forward over all devices.
    length: tokens of the largest bucket.
    read: how outputs become rewards.

  Returns:
    The stage.

  Raises:
    ValueError: the batch does not fit the mesh, or the model's outputs not the
      readout.
  """
  num_rewards = read.num_rewards(network.num_outputs)
  meshes.check_batch(batch_size, 1, mesh)
  model = heads.reward_model(network)
  params = backbone.abstract_params(model)
  shardings = meshes.parameter_shardings(model.axes, params, mesh, rules)
  score = bradley_terry.make_score(model.apply)
  rewards_and_rows = lambda params, batch: (
    read(score(params, batch)),
    batch["index"],
    batch["where"],
  )
  step = jax.jit(
    activations.laid_out(rewards_and_rows, mesh, meshes.logical_table(rules)),
    in_shardings=(shardings, meshes.batch_sharding(mesh)),
    out_shardings=meshes.replicated(mesh),
  )
  shapes = loader.pair_shapes(batch_size, length)
  return Stage(
    step,
    meshes.with_shardings(params, shardings),
    meshes.batch_shapes(shapes, mesh),
    network,
    num_rewards,
  )


def load_network(path: str, dtype: str) -> DecoderConfig:
  """The description of a reward model's folder, computing in `dtype`.

  Raises:
    ValueError: the folder holds a language model, or its two files differ in
      the number of outputs.
  """
  folder = filesystem.fetched(path, weights=False)
  network = dataclasses.replace(weights.load_config(folder), dtype=dtype)
  if network.num_outputs is None:
    raise ValueError(f"{path} holds a language model, not a reward model")
  if (epath.Path(folder) / artifact.DESCRIPTION).exists():
    described = artifact.load_description(folder)
    heads = described.heads
    for name in READING:
      found, own = getattr(described, name), getattr(network, name)
      if found != own:
        raise ValueError(
          f"{path}: {artifact.DESCRIPTION} has {name} {found!r}, config.json "
          f"{own!r}: one of them is another model's"
        )
    if len(heads) != network.num_outputs:
      raise ValueError(
        f"{path}: {artifact.DESCRIPTION} names {len(heads)} heads, "
        f"{', '.join(heads)}, config.json has {network.num_outputs} outputs: "
        "one of them is another model's"
      )
  return network


def fitted(data: preferences.DataConfig, path: str) -> preferences.DataConfig:
  """The `data` section with lengths that the model of a folder can take."""
  positions = load_network(path, "float32").max_positions
  return dataclasses.replace(
    data,
    buckets=model_rewards.fitting_buckets(data.buckets, positions, path),
    max_length=min(data.max_length, positions),
  )


def load_readout(path: str) -> reward_readout.Readout:
  """How a folder says its outputs are read; plain rewards if it is silent."""
  if not (epath.Path(path) / artifact.DESCRIPTION).exists():
    return reward_readout.PLAIN
  return model_rewards.readout_of(artifact.load_description(path))


def load_mixture_weights(path: str) -> tuple[float, ...] | None:
  """Share of each head's group by a model's folder; None if it is silent."""
  if not (epath.Path(path) / artifact.DESCRIPTION).exists():
    return None
  return artifact.load_description(path).mixture_weights


def rewards_of(
  stage: Stage,
  params: Any,
  pairs: preferences.Pairs,
  data: preferences.DataConfig,
  tokenizer: Tokenizer,
  *,
  num_responses: int = 2,
) -> np.ndarray:
  """Rewards of every pair, in the order of the dataset.

  Args:
    stage: from `build_score`.
    params: the model's parameters.
    pairs: what to score.
    data: buckets and prefetch.
    tokenizer: for the padding id.
    num_responses: how many of each pair's responses to score.

  Returns:
    float32 [N, num_responses, K], chosen first.

  Raises:
    ValueError: the tokenizer has tokens that the model does not embed, or a
      reward is not finite.
  """
  tokenizer.check_embedded(stage.network.vocab_size, "the reward model")
  rows = stage.batch["where"].sharding
  source = preferences.make_batches(
    data, pairs, tokenizer, len(stage.batch["where"]), seed=0, shuffle=False
  )
  shape = (len(pairs.dataset), num_responses, stage.num_rewards)
  rewards = np.full(shape, np.nan, np.float32)
  stream = loader.batch_iterator(
    source, start_step=0, num_steps=len(source), prefetch=data.prefetch
  )
  for batch in progress_bar.watched(
    stream, total=len(source), what="scoring batches"
  ):
    for name in PER_RESPONSE.intersection(batch):
      batch[name] = batch[name][:, :num_responses]
    scores, index, where = multihost.fetch(
      stage.step(params, multihost.global_batch(batch, rows))
    )
    rewards[index[where]] = scores[where]
  bad = np.argwhere(~np.isfinite(rewards))
  if len(bad):
    pair, response, output = bad[0]
    raise ValueError(
      f"the model gives reward {rewards[pair, response, output]} for response "
      f"{response} of pair {pair}, and {len(bad)} such rewards in all: its "
      "parameters or its compute type do not hold them"
    )
  return rewards


def outputs_by(
  stage: Stage,
  data: preferences.DataConfig,
  tokenizer: Tokenizer,
  held_out: preferences.Pairs | None,
) -> OutputsOf:
  """What a network puts out for pairs.

  Args:
    stage: the built pass.
    data: buckets and prefetch.
    tokenizer: for the padding id.
    held_out: held-out pairs, or None.

  Returns:
    The function. The last scores of training are those of the evaluation, so
    those of the held-out pairs are remembered.
  """

  def scored(params: Any, pairs: preferences.Pairs) -> np.ndarray:
    return rewards_of(stage, params, pairs, data, tokenizer)

  of_held_out = loop.remembering(lambda params: scored(params, held_out))

  def outputs(params: Any, pairs: preferences.Pairs) -> np.ndarray:
    return of_held_out(params) if pairs is held_out else scored(params, pairs)

  return outputs


def quick_scores(rewards: np.ndarray) -> dict[str, float]:
  """Accuracy and NLL of [N, 2, K] rewards, for the training curve."""
  sums = jax.device_get(_quick_sums(rewards[:, 0, 0], rewards[:, 1, 0]))
  return {
    f"eval/{name}": float(total) / float(count)
    for name, (total, count) in sums.items()
  }


@jax.jit
def _quick_sums(
  chosen: jax.Array, rejected: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Totals and counts of `quick_scores`: one program for them all."""
  return {
    "accuracy": metrics.preference_accuracy(chosen, rejected),
    "nll": metrics.negative_log_likelihood(chosen - rejected),
  }


def load_params(stage: Stage, path: str) -> Any:
  """A model's parameters, laid out as the stage wants them."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, stage.state)
  folder = filesystem.fetched(path)
  return weights.load_params(folder, stage.network, shardings=shardings)
