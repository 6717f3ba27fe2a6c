"""Generation: prompts in, sampled responses and log-probabilities out.

`Sampler` is the protocol behind which another engine may take its place.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxalign.models import decoder
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation import kv_cache, sampling
from jaxalign.ops import checks

SHORTEST_BUCKET = 16


class Generation(NamedTuple):
  """New tokens of each prompt.

  Attributes:
    tokens: int32 [B, N], `pad_id` after a row's end.
    mask: True up to the end token and with it, bool [B, N].
    log_probs: of the tokens under the model itself, before temperature,
      truncation and penalty, float32 [B, N]; 0 after a row's end.
  """

  tokens: jax.Array
  mask: jax.Array
  log_probs: jax.Array


def generate(
  config: DecoderConfig,
  params: Any,
  prompts: jax.Array,
  mask: jax.Array,
  *,
  keys: jax.Array,
  max_new_tokens: int,
  min_new_tokens: int = 0,
  temperature: float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  repetition_penalty: float = 1.0,
  eos_ids: Sequence[int] = (),
  pad_id: int,
) -> Generation:
  """Continues each prompt; compiled once per bucket of prompt lengths.

  A row's tokens depend on its prompt and its key alone: not on padding, batch
  mates or their number. Temperature, nucleus, penalty and `min_new_tokens` may
  change without a new compilation. Decoding stops when all rows have ended.

  Args:
    config: of a language model.
    params: its parameters, stacked or by layer (`unstack_layers`).
    prompts: int [B, T], padded on any side.
    mask: True where a token is attended, bool [B, T]; a row without one has
      ended at once.
    keys: typed keys, [B], one per row, or [B, G] for G results of each prompt,
      which then passes the network once.
    max_new_tokens: N, at least 1.
    min_new_tokens: before which `eos_ids` are not drawn.
    temperature: divides the logits; 0 is greedy.
    top_k: tokens kept, None for all.
    top_p: mass of the likeliest tokens that is kept, in (0, 1]; None for all.
    repetition_penalty: divides positive and multiplies negative logits of
      tokens that prompt or result hold; 1 is none.
    eos_ids: tokens that end a row.
    pad_id: fills `tokens` after a row's end.

  Returns:
    The new tokens, [B, N], or [B G, N], the results of a prompt one after
    another.

  Raises:
    TypeError, ValueError: an argument has the wrong type or shape or is out of
      range, or prompt and result exceed `max_positions`.
  """
  checks.integer(prompts=prompts)
  checks.boolean(mask=mask)
  checks.rank(2, prompts=prompts)
  checks.same_shape(prompts=prompts, mask=mask)
  batch, length = prompts.shape
  typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
  if not typed or keys.ndim not in (1, 2) or keys.shape[0] != batch:
    raise ValueError(
      f"keys must be typed keys, one or G per row of prompts {prompts.shape}, "
      f"got shape {keys.shape}"
    )
  sampling.check_length(config, length, max_new_tokens)
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
  widths = ((0, 0), (bucket(length) - length, 0))
  return _generate(
    config,
    options,
    params,
    knobs,
    jnp.pad(prompts, widths),
    jnp.pad(mask, widths),
    jax.random.key_data(keys.reshape(-1)),
  )


def bucket(length: int) -> int:
  """Padded length of a prompt: of a handful of lengths, one program each.

  Powers of 2 and the numbers half-way between, from 16.

  Args:
    length: in tokens.

  Returns:
    The least of these that is not shorter.
  """
  power = SHORTEST_BUCKET
  while power < length:
    power *= 2
  between = power // 4 * 3
  return between if power > SHORTEST_BUCKET and length <= between else power


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  params: Any,
  knobs: sampling.Knobs,
  prompts: jax.Array,
  mask: jax.Array,
  key_data: jax.Array,
) -> Generation:
  params = decoder.unstack_layers(params)
  state = kv_cache.start_all(
    config, options, params, knobs, prompts, mask, key_data
  )
  state = jax.lax.while_loop(
    lambda state: ~jnp.all(state.done),
    lambda state: kv_cache.advance(config, options, params, knobs, state),
    state,
  )
  return finished(state)


def finished(state: kv_cache.Slots) -> Generation:
  """Generated tokens and log-probabilities of all rows.

  Args:
    state: rows, ended or not.

  Returns:
    Their tokens, [B, N].
  """
  columns = jnp.arange(state.tokens.shape[1], dtype=jnp.int32)
  mask = columns[None] < state.count[:, None]
  return Generation(state.tokens, mask, state.log_probs)


class Sampler(Protocol):
  """Prompts in, new tokens and their log-probabilities out.

  What a policy is trained on comes through this call alone, so an engine with
  its own kernels, its own precision or its own machines may stand behind it.
  How far it strays from the policy is measured by
  `losses.log_prob_mismatch`.
  """

  def __call__(
    self, params: Any, prompts: jax.Array, mask: jax.Array, *, keys: jax.Array
  ) -> Generation:
    """Continues prompts [B, T] with the policy at `params`.

    Keys are [B], or [B, G] for G results of each prompt, as of `generate`.
    """


def local_sampler(
  config: DecoderConfig,
  *,
  max_new_tokens: int,
  min_new_tokens: int = 0,
  temperature: float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  repetition_penalty: float = 1.0,
  eos_ids: Sequence[int] = (),
  pad_id: int,
) -> Sampler:
  """`generate` as a sampler.

  Args:
    config: of a language model.
    max_new_tokens: as for `generate`, and so are all others.
    min_new_tokens: see there.
    temperature: see there.
    top_k: see there.
    top_p: see there.
    repetition_penalty: see there.
    eos_ids: see there.
    pad_id: see there.

  Returns:
    The sampler.
  """
  return functools.partial(
    generate,
    config,
    max_new_tokens=max_new_tokens,
    min_new_tokens=min_new_tokens,
    temperature=temperature,
    top_k=top_k,
    top_p=top_p,
    repetition_penalty=repetition_penalty,
    eos_ids=tuple(eos_ids),
    pad_id=pad_id,
  )
