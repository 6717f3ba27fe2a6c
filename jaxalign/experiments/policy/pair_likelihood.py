"""Likelihood of both responses of a pair under policies, and their reference.

The reference is read once, before the first step, and its log-probabilities are
kept in a file that is named by what they were made of.
"""

import dataclasses
import hashlib
import io
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxalign.algorithms import direct_preference, update
from jaxalign.data.batching import loader
from jaxalign.data.records import fingerprints
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import ensembles, scoring
from jaxalign.models import activations, heads, token_log_probs
from jaxalign.models.config import DecoderConfig
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem

log = logging.getLogger("jaxalign")

Values = Callable[[jax.Array, update.Batch], jax.Array]


def reader(
  network: DecoderConfig,
  model: heads.Model,
  *,
  dropout: bool,
  features: bool = False,
  copies: int | None = None,
) -> direct_preference.Read:
  """What policies make of both responses of every row, in one pass.

  Args:
    network: of a language model.
    model: its functions.
    dropout: whether rows are dropped out with keys from `batch["key"]`.
    features: whether to compute `Likelihood.features`, at the price of a second
      pass of the language head, forward and backward.
    copies: K policies whose parameters are [K, ...]; None for one.

  Returns:
    `(params, batch) -> Likelihood`, of K policies or of one.
  """

  def one(params: Any, batch: update.Batch) -> tuple[jax.Array, jax.Array]:
    tokens = batch["tokens"]
    rows, responses, length = tokens.shape
    flat = lambda x: x.reshape(-1, length)
    keys = None
    if dropout:
      keys = jax.vmap(jax.random.split, (0, None))(batch["key"], responses)
      keys = keys.reshape(-1)
    out = model.apply(
      params, flat(tokens), flat(batch["mask"]), dropout_keys=keys
    )
    counted = direct_preference.answer_tokens(batch).reshape(-1, length - 1)

    def total(params: Any, hidden: jax.Array) -> jax.Array:
      each = token_log_probs(network, params, hidden, flat(tokens)[:, 1:])
      return jnp.sum(jnp.where(counted, each, 0.0), axis=-1)

    hidden = out.hidden[:, :-1]
    log_probs = total(params, hidden)
    slopes = jnp.zeros((len(hidden), 0), hidden.dtype)
    if features:
      # Constants, as no gradient flows through a coupling's statistics.
      fixed, read = jax.lax.stop_gradient((params, hidden))
      _, pull = jax.vjp(
        lambda gain: total(fixed, read * gain[:, None, :]),
        jnp.ones_like(read[:, 0]),
      )
      (slopes,) = pull(jnp.ones_like(log_probs))
    back = lambda x: x.reshape(rows, responses, *x.shape[1:])
    return back(log_probs), back(slopes)

  def read(params: Any, batch: update.Batch) -> direct_preference.Likelihood:
    if copies is None:
      log_probs, slopes = one(params, batch)
      return direct_preference.Likelihood(log_probs[..., None], slopes)
    log_probs, slopes = jax.vmap(one, (0, None), (-1, 0))(params, batch)
    return direct_preference.Likelihood(log_probs, slopes[0])

  return read


def build(
  network: DecoderConfig,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
  batch_size: int,
  length: int,
  values: Values,
  copies: int | None = None,
) -> scoring.Stage:
  """A stage for `scoring.rewards_of` that reads policies.

  Args:
    network: of a language model.
    mesh: devices, real or abstract.
    rules: overrides of the logical table.
    batch_size: pairs per forward over all devices.
    length: tokens of the largest bucket.
    values: `(log_probs [B, 2, H], batch) -> [B, 2, H]`, what is given of them.
    copies: K policies whose parameters are [K, ...]; None for one.

  Returns:
    The stage, with `num_rewards` K or 1.

  Raises:
    ValueError: the batch does not fit the mesh.
  """
  meshes.check_batch(batch_size, 1, mesh)
  model = heads.causal_lm(network)
  params = backbone.abstract_params(model)
  params = meshes.with_shardings(
    params, meshes.parameter_shardings(model.axes, params, mesh, rules)
  )
  if copies is not None:
    params = ensembles.stacked(params, mesh, copies)
  read = reader(network, model, dropout=False, copies=copies)
  step = jax.jit(
    activations.laid_out(
      lambda params, batch: (
        values(read(params, batch).log_probs, batch),
        batch["index"],
        batch["where"],
      ),
      mesh,
      meshes.logical_table(rules),
    ),
    in_shardings=(
      jax.tree.map(lambda leaf: leaf.sharding, params),
      meshes.batch_sharding(mesh),
    ),
    out_shardings=meshes.replicated(mesh),
  )
  shapes = loader.policy_shapes(batch_size, length)
  number = 1 if copies is None else copies
  return scoring.Stage(
    step,
    params,
    meshes.batch_shapes(shapes, mesh),
    network,
    number,
    passes={"tokens": ("forward",) * number},
  )


def with_reference(
  pairs: preferences.Pairs, log_probs: np.ndarray | None = None
) -> preferences.Pairs:
  """The pairs with the reference's log-probabilities, 0 for none, [N, 2]."""
  if log_probs is None:
    log_probs = np.zeros((len(pairs.dataset), 2), np.float32)
  dataset = dataclasses.replace(pairs.dataset, ref_log_probs=log_probs)
  return pairs._replace(dataset=dataset)


def fingerprint(
  origin: Any,
  folder: str | None,
  data: preferences.DataConfig,
  files: tuple[str, ...],
  pairs: preferences.Pairs,
  tokenizer: Tokenizer,
) -> str:
  """A digest of all that the reference's log-probabilities depend on.

  Args:
    origin: what the reference's parameters and its arithmetic follow from
      beside a folder: sections of a config.
    folder: that it is read from, by the contents of its files; None for one
      from scratch.
    data: how texts become tokens.
    files: the sources, by content where they are files.
    pairs: made of them.
    tokenizer: that made them.

  Returns:
    Hexadecimal.
  """
  digest = hashlib.sha256()
  weights = None
  if folder is not None:
    path = filesystem.resolved(folder)
    weights = fingerprints.of_folder(path, fingerprints.WEIGHTS)
  given = (
    origin,
    weights,
    fingerprints.of_sources(files),
    data.max_length,
    data.crowd_seed,
    data.split_by,
    data.eval_fraction,
    tokenizer.description(),
    tokenizer.fast.chat_template,
  )
  digest.update(repr(given).encode())
  digest.update(tokenizer.fast.backend_tokenizer.to_str().encode())
  sequences = pairs.dataset.sequences
  for array in (sequences.lengths, sequences.prompt_lengths):
    digest.update(np.ascontiguousarray(array, np.int64).tobytes())
  return digest.hexdigest()


def cached(
  folder: epath.Path, name: str, number: int, make: Callable[[], np.ndarray]
) -> np.ndarray:
  """Log-probabilities [N, 2] of a file, which is made where there is none.

  Args:
    folder: of such files.
    name: the fingerprint.
    number: of pairs, N.
    make: computes them, on every process.

  Returns:
    float32 [N, 2].

  Raises:
    ValueError: the file is not such an array.
  """
  path = folder / f"{name}.npy"
  if path.exists():
    try:
      found = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError) as error:
      raise ValueError(f"{path} is damaged, delete it: {error}") from error
    if found.shape != (number, 2) or not np.isfinite(found).all():
      raise ValueError(
        f"{path} is damaged, delete it: it must hold finite log-probabilities "
        f"of {number} pairs, got shape {found.shape}"
      )
    log.info("log-probabilities of the reference: read from %s", path)
    return np.asarray(found, np.float32)
  made = make()
  if multihost.is_main():
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    filesystem.write_atomically(path, buffer.getvalue())
  return made
