"""Likelihood of packed texts' answers under a policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.algorithms import sft, update
from jaxalign.data.batching import loader, sft_dataset
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import sft as sft_data
from jaxalign.models import activations, heads, token_log_probs
from jaxalign.models.config import DecoderConfig
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import progress_bar


def answer_log_probs(
  network: DecoderConfig, model: heads.Model, *, dropout: bool
) -> sft.LogProbs:
  """Log-probabilities [B, T - 1] of packed rows, the vocabulary in slices."""

  def log_probs(params: Any, batch: update.Batch) -> jax.Array:
    out = model.apply(
      params,
      batch["tokens"],
      batch["mask"],
      dropout_keys=batch["key"] if dropout else None,
      segment_ids=batch["segment_ids"],
    )
    return token_log_probs(
      network, params, out.hidden[:, :-1], batch["tokens"][:, 1:]
    )

  return log_probs


def make_measure(
  data: sft_data.TextConfig,
  rules: tuple[tuple[str, str | None], ...],
  stage: training.Stage,
  mesh: jax.sharding.Mesh,
  held_out: sft_dataset.PackedDataset,
  tokenizer: Tokenizer,
) -> Callable[[Any], dict[str, float]]:
  """`params -> {"eval/nll": ...}`, in nats per answer token.

  Args:
    data: prefetch and the length of a row.
    rules: overrides of the logical table.
    stage: gives the network, the layout of its parameters and the batch size.
    mesh: devices.
    held_out: packed texts.
    tokenizer: for the padding id.

  Returns:
    The function; it goes once through all texts.
  """
  model = heads.causal_lm(stage.network)
  log_probs = answer_log_probs(stage.network, model, dropout=False)

  def totals(params: Any, batch: update.Batch) -> tuple[jax.Array, jax.Array]:
    counted = sft.counted_targets(batch)
    likely = jnp.where(counted, log_probs(params, batch), 0.0)
    return -jnp.sum(likely), jnp.sum(counted)

  table = meshes.logical_table(rules)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, stage.params)
  evaluate = jax.jit(
    activations.laid_out(totals, mesh, table),
    in_shardings=(shardings, meshes.batch_sharding(mesh)),
    out_shardings=meshes.replicated(mesh),
  )
  source = sft_data.make_batches(
    data,
    held_out,
    tokenizer,
    len(stage.batch["where"]),
    seed=0,
    shuffle=False,
  )
  rows = stage.batch["where"].sharding

  def measure(params: Any) -> dict[str, float]:
    total = count = 0.0
    stream = loader.batch_iterator(
      source,
      start_step=0,
      num_steps=len(source),
      prefetch=data.prefetch,
    )
    for batch in progress_bar.watched(
      stream, total=len(source), what="held-out likelihood"
    ):
      part = multihost.fetch(
        evaluate(params, multihost.global_batch(batch, rows))
      )
      total, count = total + float(part[0]), count + float(part[1])
    return {"eval/nll": total / max(count, 1.0)}

  return measure
