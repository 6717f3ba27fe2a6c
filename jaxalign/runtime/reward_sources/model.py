"""Model reward source: a reward model's folder, batched into buckets.

Texts are sorted by length and cut into batches, each padded to the bucket of
its longest text, so that there are as few forward passes as batches and as few
programs as buckets.
"""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import reward_readout
from jaxalign.data.batching import token_store
from jaxalign.data.records.chat import Text
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.models import activations, heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import json_files, param_map, weights
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, filesystem, step_guard
from jaxalign.runtime.reward_sources import base
from jaxalign.runtime.reward_sources import labels as label_shares


class ModelSource:
  """A reward model with its own tokenizer.

  Attributes:
    names: of its rewards.
    mixture_weights: share of each reward's group, None where unknown.
    units: standard deviations that calibrated rewards are measured in, [K].
    labels: that the model predicts shares of, their values measured as its
      reward; None where it predicts none.
    num_factors: in which people differ to it, 0 for none.
    traces: how often the forward pass was compiled: once per bucket met.
    counts: texts that were cut since the start, name -> texts.
  """

  def __init__(
    self,
    network: DecoderConfig,
    params: Any,
    tokenizer: Tokenizer,
    *,
    names: tuple[str, ...],
    read: reward_readout.Readout = reward_readout.PLAIN,
    mesh: jax.sharding.Mesh,
    rules: tuple[tuple[str, str | None], ...] = (),
    batch_size: int,
    buckets: tuple[int, ...],
    max_length: int,
    calibration: tuple[Sequence[float], Sequence[float]] | None = None,
    mixture_weights: tuple[float, ...] | None = None,
    label_names: tuple[str, ...] = (),
  ) -> None:
    """Checks that everything fits; compiles nothing yet.

    Args:
      network: the model's description.
      params: its parameters, laid out as `parameter_places` says.
      tokenizer: the model's own.
      names: of its K rewards.
      read: how its outputs become rewards.
      mesh: devices.
      rules: overrides of the logical table.
      batch_size: texts per forward pass over all devices.
      buckets: padded lengths in tokens, one compilation each, that fit the
        model.
      max_length: tokens that a text is cut to, from the left of its prompt; at
        most the largest bucket.
      calibration: mean and standard deviation that each reward is measured in,
        [K] each; None for raw rewards.
      mixture_weights: share of each reward's group.
      label_names: of the labels where `read` is of labels, else none.

    Raises:
      ValueError: batch, names, calibration or tokenizer do not fit the model or
        the mesh.
    """
    tokenizer.check_embedded(network.vocab_size, "the reward model")
    meshes.check_batch(batch_size, 1, mesh)
    if batch_size % jax.process_count():
      raise ValueError(
        "batch_size must be divisible by the number of processes, got "
        f"{batch_size} and {jax.process_count()}"
      )
    num_rewards = read.num_rewards(network.num_outputs)
    if num_rewards != len(names):
      raise ValueError(
        f"the model gives {num_rewards} rewards, {len(names)} are named: "
        f"{', '.join(names)}"
      )
    self.names = names
    self.mixture_weights = mixture_weights
    self.counts = {"truncated_prompts": 0, "truncated_responses": 0}
    self._params = params
    self._tokenizer = tokenizer
    self._batch_size = batch_size
    self._buckets = tuple(sorted(set(buckets)))
    self._max_length = min(max_length, self._buckets[-1])
    self._mean, self._std = _checked_calibration(calibration, names)
    self.units = tuple(float(deviation) for deviation in self._std)
    self.labels = None
    if label_names and read.utilities is not None:
      self.labels = label_shares.rescaled(
        label_shares.Labels(label_names, read.utilities), self._mean, self._std
      )
    self._num_labels = 0 if self.labels is None else len(label_names)
    self.num_factors = read.num_factors(network.num_outputs)
    wide: reward_readout.Wide = read
    if self.labels or self.num_factors:
      wide = reward_readout.with_parts(read)
    self._rows = meshes.batch_sharding(mesh)
    model = heads.reward_model(network)
    self.traces = step_guard.TraceCounter(
      lambda params, ids, mask, response: wide(
        model.apply(params, ids, mask, response=response).rewards
      )
    )
    self._forward = jax.jit(
      activations.laid_out(self.traces, mesh, meshes.logical_table(rules)),
      in_shardings=(
        parameter_places(network, mesh, rules),
        *(self._rows,) * 3,
      ),
      out_shardings=meshes.replicated(mesh),
    )

  def __call__(
    self,
    prompts: Sequence[base.Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K]; see `RewardSource`."""
    return self.scored(prompts, responses, columns).rewards

  def label_probs(
    self,
    prompts: Sequence[base.Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> np.ndarray:
    """Shares of the labels of B responses, float32 [B, d]."""
    return label_shares.shares(self.scored(prompts, responses, columns))

  def scored(
    self,
    prompts: Sequence[base.Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> label_shares.Scored:
    """Rewards, and label shares or factors, of B responses in one pass."""
    base.check_texts(prompts, responses, columns)
    number, more = len(self.names), self._num_labels + self.num_factors
    found = np.zeros((len(responses), number + more), np.float32)
    if responses:
      self._fill(found, prompts, responses)
    calibrated = (found[:, :number].astype(np.float64) - self._mean) / self._std
    rewards = base.checked_rewards(
      calibrated,
      num_texts=len(responses),
      names=self.names,
      origin="the reward model",
    )
    beside = found[:, number:]
    return label_shares.Scored(
      rewards,
      beside if self._num_labels else None,
      (beside / self._std).astype(np.float32) if self.num_factors else None,
    )

  def _fill(
    self,
    found: np.ndarray,
    prompts: Sequence[base.Prompt],
    responses: Sequence[Text],
  ) -> None:
    """Raw rewards, and what else is told of all texts behind them, by batch."""
    texts = token_store.encode(
      (
        Record(prompt, (response,))
        for prompt, response in zip(prompts, responses, strict=True)
      ),
      self._tokenizer,
      max_length=self._max_length,
    )
    for name, number in texts.counts.items():
      self.counts[name] += number
    order = np.argsort(-texts.lengths, kind="stable")
    for start in range(0, len(order), self._batch_size):
      rows = order[start : start + self._batch_size]
      found[rows] = self._raw(texts, rows)[: len(rows)]

  def _padded(
    self, texts: token_store.Sequences, rows: np.ndarray
  ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """This process' rows of a batch, the last one repeated; ids and mask."""
    longest = int(texts.lengths[rows].max())
    bucket = next(size for size in self._buckets if size >= longest)
    filled = np.pad(rows, (0, self._batch_size - len(rows)), mode="edge")
    share = self._batch_size // jax.process_count()
    mine = filled[share * jax.process_index() :][:share]
    return mine, texts.padded(mine, bucket, self._tokenizer.pad_id)

  def _raw(self, texts: token_store.Sequences, rows: np.ndarray) -> np.ndarray:
    """Raw rewards of a batch, the last row repeated to fill it, [batch, K]."""
    mine, (ids, mask) = self._padded(texts, rows)
    begins = texts.prompt_lengths[mine][:, None]
    response = np.arange(ids.shape[1])[None] >= begins
    batch = multihost.global_batch((ids, mask, response), self._rows)
    return np.asarray(multihost.fetch(self._forward(self._params, *batch)))


def parameter_places(
  network: DecoderConfig,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...] = (),
) -> Any:
  """Shardings of a reward model's parameters.

  Args:
    network: its description.
    mesh: devices.
    rules: overrides of the logical table.

  Returns:
    Tree of params with a sharding in place of each array.
  """
  model = heads.reward_model(network)
  return meshes.parameter_shardings(
    model.axes, param_map.abstract_params(network), mesh, rules
  )


def readout_of(
  described: artifact.Description,
  risk: str | None = None,
  alpha: float | None = None,
  kappa: float | None = None,
) -> reward_readout.Readout:
  """How a reward model's outputs are read as rewards.

  Args:
    described: content of its `jaxalign.json`.
    risk: in place of the model's own; None for that.
    alpha: of `risk`.
    kappa: of `risk`.

  Returns:
    The readout.

  Raises:
    ValueError: alpha or kappa without a risk, or the model predicts nothing
      that the risk is of.
  """
  if risk is None:
    if (alpha, kappa) != (None, None):
      raise ValueError(
        "alpha and kappa go with a risk, which is the model's own where it is "
        f"None, got {alpha} and {kappa}"
      )
    risk, alpha, kappa = described.risk, described.alpha, described.kappa
  return reward_readout.Readout(
    described.readout, described.utilities, risk, alpha, kappa
  )


def load_source(
  folder: str,
  network: DecoderConfig,
  *,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...] = (),
  batch_size: int,
  buckets: tuple[int, ...],
  calibrated: bool,
  risk: str | None = None,
  alpha: float | None = None,
  kappa: float | None = None,
  make: Callable[..., ModelSource] = ModelSource,
) -> ModelSource:
  """A `model/` folder as a source.

  Args:
    folder: what a training stage wrote; or another reward model's, whose
      rewards are raw and whose longest text is the model's.
    network: of `weights.load_config`, computing in the type wanted.
    mesh: devices.
    rules: overrides of the logical table.
    batch_size: texts per forward pass over all devices.
    buckets: padded lengths in tokens; those that the model has no positions
      for are dropped.
    calibrated: measure each reward in standard deviations from the mean of the
      reference responses, as `jaxalign.json` has them: of rewards at the risk
      that the model was trained with, whatever `risk` is here.
    risk: what stands for a predicted distribution, see
      `reward_readout.Readout`; None for what `jaxalign.json` says.
    alpha: see there, beside a `risk` alone.
    kappa: see there, beside a `risk` alone.
    make: the class, or what makes one of the same arguments.

  Returns:
    The source. Texts are cut to the length the model was trained on.

  Raises:
    ValueError: no finished reward model, no calibration, or a misfit.
  """
  folder = filesystem.fetched(folder)
  described = _description(folder, network, calibrated=calibrated)
  if described.kind != "reward":
    raise ValueError(
      f"{folder} holds a {described.kind}, a reward source needs a reward model"
    )
  read = readout_of(described, risk, alpha, kappa)
  fit = None
  if calibrated:
    if described.calibration is None:
      raise ValueError(
        f"{folder} has no calibration; calibrated=False gives its raw rewards"
      )
    fit = (described.calibration["mean"], described.calibration["std"])
  return make(
    network,
    weights.load_params(
      folder, network, shardings=parameter_places(network, mesh, rules)
    ),
    tokenizer_files.load_tokenizer(folder),
    # The outputs of a distribution are no rewards: together they are one.
    names=described.heads if read.kind == "rewards" else ("reward",),
    read=read,
    mesh=mesh,
    rules=rules,
    batch_size=batch_size,
    buckets=fitting_buckets(buckets, network.max_positions, folder),
    max_length=described.max_length,
    calibration=fit,
    mixture_weights=described.mixture_weights,
    label_names=described.heads if read.kind == "labels" else (),
  )


def _description(
  folder: str, network: DecoderConfig, *, calibrated: bool
) -> artifact.Description:
  """The folder's jaxalign.json, or a default for a folder without one."""
  if calibrated or (epath.Path(folder) / artifact.DESCRIPTION).exists():
    return artifact.load_description(folder)
  number = network.num_outputs or 0
  names = _label_names(folder, number)
  return artifact.Description(
    kind="policy" if network.num_outputs is None else "reward",
    heads=("reward",) if number == 1 else names,
    max_length=network.max_positions,
    calibration=None,
    utilities=None,
    mixture_weights=None,
    provenance={},
  )


def _label_names(folder: str, number: int) -> tuple[str, ...]:
  """Names of outputs by config.json, where it has some of its own."""
  labels = json_files.read_object(epath.Path(folder) / "config.json").get(
    "id2label"
  )
  if isinstance(labels, dict):
    found = tuple(str(labels.get(str(k))) for k in range(number))
    own = not any(re.fullmatch(r"LABEL_\d+|None", name) for name in found)
    if own and len({*found}) == number:
      return found
  return tuple(f"output_{k}" for k in range(number))


def _checked_calibration(
  calibration: tuple[Sequence[float], Sequence[float]] | None,
  names: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation per reward, float64 [K] each; 0 and 1 for none."""
  if calibration is None:
    return np.zeros(len(names)), np.ones(len(names))
  mean, std = (np.asarray(part, np.float64) for part in calibration)
  if mean.shape != (len(names),) or std.shape != mean.shape:
    raise ValueError(
      f"calibration must have a mean and a deviation for each of "
      f"{', '.join(names)}, got {len(mean)} and {len(std)}"
    )
  for name, deviation in zip(names, std, strict=True):
    if not deviation > 0:
      raise ValueError(
        f"{name} has standard deviation {deviation} on the reference "
        "responses: a constant reward cannot be calibrated"
      )
  return mean, std


log = logging.getLogger("jaxalign")


def fitting_buckets(
  buckets: Sequence[int], positions: int, model: str
) -> tuple[int, ...]:
  """Buckets up to a model's length; what is longer is dropped and logged.

  Args:
    buckets: padded lengths in tokens, as a config has them.
    positions: tokens that the model takes at most.
    model: its folder, for the log.

  Returns:
    The lengths in rising order. Where one was dropped the last is `positions`,
    so that a text may be as long as the model allows.

  Raises:
    ValueError: no length, or one that is not positive.
  """
  if not buckets or min(buckets) < 1:
    raise ValueError(
      f"buckets must hold positive lengths, got {tuple(buckets)}"
    )
  dropped = sorted({length for length in buckets if length > positions})
  if not dropped:
    return tuple(sorted(set(buckets)))
  log.info(
    "buckets %s exceed the %d positions of %s and are dropped; longer texts "
    "are cut",
    tuple(dropped),
    positions,
    model,
  )
  return tuple(sorted({min(length, positions) for length in buckets}))
