"""Continuous batching: a finished row takes the next prompt at once."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models import decoder
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation import kv_cache, sampling
from jaxalign.models.generation.generate import Generation, bucket, finished
from jaxalign.ops import checks


def generate_queue(
  config: DecoderConfig,
  params: Any,
  prompts: np.ndarray,
  mask: np.ndarray,
  *,
  keys: jax.Array,
  batch_size: int,
  refill_size: int = 1,
  max_new_tokens: int,
  limits: np.ndarray | None = None,
  min_new_tokens: int = 0,
  temperature: float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  repetition_penalty: float = 1.0,
  eos_ids: Sequence[int] = (),
  pad_id: int,
) -> Generation:
  """`generate` for a queue of prompts, `batch_size` of them at a time.

  The result is that of `generate`, row for row, and takes as many steps as the
  rows need, not as many as the longest of each batch. The host is asked when
  enough rows have ended, not at every token.

  Args:
    config: of a language model.
    params: its parameters, stacked or by layer (`unstack_layers`).
    prompts: int [N, T], padded on any side.
    mask: True where a token is attended, bool [N, T].
    keys: typed keys [N], one per prompt.
    batch_size: B, rows that are decoded together.
    refill_size: rows that are replaced together, in [1, B]; more of them make
      better use of a device, and wait for one another.
    max_new_tokens: as for `generate`.
    limits: new tokens of each prompt at most, int [N] in [1, max_new_tokens];
      None is `max_new_tokens` for all.
    min_new_tokens: as for `generate`.
    temperature: as for `generate`.
    top_k: as for `generate`.
    top_p: as for `generate`.
    repetition_penalty: as for `generate`.
    eos_ids: as for `generate`.
    pad_id: as for `generate`.

  Returns:
    The new tokens, on the host, [N, max_new_tokens].

  Raises:
    TypeError, ValueError: as `generate`, and a batch, refill or limit is out of
      range.
  """
  prompts, mask = np.asarray(prompts), np.asarray(mask)
  checks.rank(2, prompts=prompts)
  checks.same_shape(prompts=prompts, mask=mask)
  number, length = prompts.shape
  if not 1 <= refill_size <= batch_size:
    raise ValueError(
      f"refill_size must be in [1, batch_size] = [1, {batch_size}], got "
      f"{refill_size}"
    )
  sampling.check_length(config, length, max_new_tokens)
  if limits is None:
    limits = np.full(number, max_new_tokens)
  if np.shape(limits) != (number,) or np.any(
    (np.asarray(limits) < 1) | (np.asarray(limits) > max_new_tokens)
  ):
    raise ValueError(
      f"limits must be [{number}] numbers in [1, {max_new_tokens}], got "
      f"{limits}"
    )
  options, knobs = sampling.sampling_options(
    config,
    max_new_tokens=max_new_tokens,
    min_new_tokens=min_new_tokens,
    temperature=temperature,
    top_k=top_k,
    top_p=top_p,
    repetition_penalty=repetition_penalty,
    eos_ids=tuple(eos_ids),
    pad_id=pad_id,
    key_kind=jax.random.key_impl(keys),
  )
  key_data = jax.random.key_data(keys)
  wide = bucket(length)
  widths = ((0, 0), (wide - length, 0))
  prompts, mask = np.pad(prompts, widths), np.pad(mask, widths)
  params = _unstack(params)
  state = _empty(config, options, batch_size, wide)
  owner = np.full(batch_size, -1)
  results = Generation(
    np.full((number, max_new_tokens), pad_id, np.int32),
    np.zeros((number, max_new_tokens), bool),
    np.zeros((number, max_new_tokens), np.float32),
  )
  waiting = list(range(number))
  while True:
    free = np.flatnonzero(np.asarray(state.done))
    ended = free[owner[free] >= 0]
    if len(ended):
      for whole, rows in zip(results, _finished(state), strict=True):
        whole[owner[ended]] = np.asarray(rows)[ended]
      owner[ended] = -1
    while waiting and len(free):
      rows, free = free[:refill_size], free[refill_size:]
      taken, waiting = waiting[: len(rows)], waiting[len(rows) :]
      owner[rows[: len(taken)]] = taken
      state = _start(
        config,
        options,
        params,
        knobs,
        state,
        _filled(rows[: len(taken)], refill_size, batch_size),
        prompts[_filled(taken, refill_size, 0)],
        mask[_filled(taken, refill_size, 0)],
        key_data[_filled(taken, refill_size, 0)],
        _filled(np.asarray(limits)[taken], refill_size, 1),
      )
    if np.all(owner < 0):
      return results
    # Rows without an owner have ended already; with nobody waiting there is no
    # reason to stop before all have.
    idle = int(np.sum(owner < 0))
    enough = min(idle + refill_size, batch_size) if waiting else batch_size
    state = _advance(config, options, params, knobs, state, jnp.int32(enough))


def _filled(rows: Any, size: int, fill: int) -> np.ndarray:
  """`rows` as int32 [size]."""
  array = np.full(size, fill, np.int32)
  array[: len(rows)] = rows
  return array


_unstack = jax.jit(decoder.unstack_layers)
_finished = jax.jit(finished)
_start = jax.jit(kv_cache.start_rows, static_argnums=(0, 1), donate_argnums=4)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _empty(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  batch: int,
  prompt_length: int,
) -> kv_cache.Slots:
  return kv_cache.empty_slots(
    config, options, batch=batch, prompt_length=prompt_length
  )


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def _advance(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  params: Any,
  knobs: sampling.Knobs,
  state: kv_cache.Slots,
  enough: jax.Array,
) -> kv_cache.Slots:
  """Steps until `enough` rows have ended."""
  return jax.lax.while_loop(
    lambda state: jnp.sum(state.done, dtype=jnp.int32) < enough,
    lambda state: kv_cache.advance(config, options, params, knobs, state),
    state,
  )
