"""Token sampling: temperature, top-k, top-p, and the log-probability."""

import dataclasses
from collections.abc import Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.models.config import DecoderConfig


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
  """Static sampling options: a change means a new compilation.

  Attributes:
    max_new_tokens: columns of the result.
    greedy: the likeliest token instead of a sample.
    top_k: tokens kept, None for all.
    nucleus: whether `Knobs.top_p` is in force.
    penalised: whether `Knobs.repetition_penalty` is in force.
    eos_ids: tokens that end a row.
    pad_id: fills a row after its end.
    key_kind: what `jax.random.key_impl` says of the keys. Data of keys are
      carried along, not keys: a row draws from its key more than once.
  """

  max_new_tokens: int
  greedy: bool
  top_k: int | None
  nucleus: bool
  penalised: bool
  eos_ids: tuple[int, ...]
  pad_id: int
  key_kind: Hashable


class Knobs(NamedTuple):
  """Dynamic sampling options: a change needs no new compilation.

  Attributes:
    temperature: divides the logits, float32 scalar.
    top_p: probability mass that is kept, float32 scalar.
    repetition_penalty: of tokens that the row holds, float32 scalar.
    min_new_tokens: before which no row ends, int32 scalar.
  """

  temperature: jax.Array
  top_p: jax.Array
  repetition_penalty: jax.Array
  min_new_tokens: jax.Array


def check_length(
  config: DecoderConfig, length: int, max_new_tokens: int
) -> None:
  """Raises ValueError if prompt and result are too long for the model.

  Args:
    config: of a language model.
    length: of the longest prompt, with its padding.
    max_new_tokens: likewise of the result.
  """
  scaling = config.rope_scaling
  name, most = "max_positions", config.max_positions
  if scaling is not None and scaling.kind == "longrope":
    # Beyond the original context every token is turned by other numbers, also
    # those in the cache.
    context = scaling.original_max_positions
    if context < most:
      name, most = "original_max_positions", context
  if length + max_new_tokens > most:
    raise ValueError(
      f"prompts are {length} long and max_new_tokens is {max_new_tokens}, the "
      f"model takes at most {name} = {most}"
    )


def sampling_options(
  config: DecoderConfig,
  *,
  max_new_tokens: int,
  min_new_tokens: int,
  temperature: float,
  top_k: int | None,
  top_p: float | None,
  repetition_penalty: float,
  eos_ids: tuple[int, ...],
  pad_id: int,
  key_kind: Hashable,
) -> tuple[SamplingOptions, Knobs]:
  """The arguments of `generate`, checked and sorted by what they decide.

  Args:
    config: of a language model.
    max_new_tokens: at least 1.
    min_new_tokens: at most `max_new_tokens`.
    temperature: 0 is greedy.
    top_k: tokens kept, None for all.
    top_p: probability mass kept, in (0, 1]; None for all.
    repetition_penalty: above 0; 1 is none.
    eos_ids: tokens that end a row.
    pad_id: fills a row after its end.
    key_kind: see `SamplingOptions`.

  Returns:
    Options and knobs.

  Raises:
    ValueError: an argument is out of range.
  """
  if config.num_outputs is not None:
    raise ValueError(
      f"num_outputs must be None to generate, got {config.num_outputs}"
    )
  if max_new_tokens < 1:
    raise ValueError(f"max_new_tokens must be >= 1, got {max_new_tokens}")
  if not 0 <= min_new_tokens <= max_new_tokens:
    raise ValueError(
      f"min_new_tokens must be in [0, max_new_tokens] = [0, {max_new_tokens}], "
      f"got {min_new_tokens}"
    )
  if not temperature >= 0:
    raise ValueError(f"temperature must be >= 0, got {temperature}")
  if top_k is not None and not 1 <= top_k <= config.vocab_size:
    raise ValueError(
      f"top_k must be in [1, vocab_size] = [1, {config.vocab_size}], got "
      f"{top_k}"
    )
  if top_p is not None and not 0 < top_p <= 1:
    raise ValueError(f"top_p must be in (0, 1], got {top_p}")
  if not repetition_penalty > 0:
    raise ValueError(
      f"repetition_penalty must be > 0, got {repetition_penalty}"
    )
  eos_ids = tuple(int(token) for token in eos_ids)
  for name, ids in (("eos_ids", eos_ids), ("pad_id", (pad_id,))):
    if any(not 0 <= token < config.vocab_size for token in ids):
      raise ValueError(
        f"{name} must be in [0, vocab_size) = [0, {config.vocab_size}), got "
        f"{ids if name == 'eos_ids' else pad_id}"
      )
  options = SamplingOptions(
    max_new_tokens=max_new_tokens,
    greedy=temperature == 0,
    top_k=None if top_k == config.vocab_size else top_k,
    nucleus=top_p is not None and top_p < 1,
    penalised=repetition_penalty != 1,
    eos_ids=eos_ids,
    pad_id=pad_id,
    key_kind=key_kind,
  )
  knobs = Knobs(
    jnp.float32(1 if options.greedy else temperature),
    jnp.float32(1 if top_p is None else top_p),
    jnp.float32(repetition_penalty),
    jnp.int32(min_new_tokens),
  )
  return options, knobs


def shaped_logits(
  logits: jax.Array,
  options: SamplingOptions,
  knobs: Knobs,
  *,
  seen: jax.Array | None,
  count: jax.Array,
) -> jax.Array:
  """Logits after penalty, temperature, top-k and top-p, as in transformers.

  Args:
    logits: of the model, float32 [B, V].
    options: see `SamplingOptions`.
    knobs: see `Knobs`.
    seen: tokens that a row holds, bool [B, V]; None without a penalty.
    count: new tokens that a row holds, int32 [B].

  Returns:
    [B, V], the lowest number where a token cannot be drawn.
  """
  lowest = jnp.finfo(logits.dtype).min
  if seen is not None:
    penalty = knobs.repetition_penalty
    pushed = jnp.where(logits < 0, logits * penalty, logits / penalty)
    logits = jnp.where(seen, pushed, logits)
  if options.eos_ids:
    ends = jnp.zeros(logits.shape[-1], jnp.bool_)
    ends = ends.at[jnp.array(options.eos_ids)].set(True)
    early = count < knobs.min_new_tokens
    logits = jnp.where(early[:, None] & ends[None], lowest, logits)
  if options.greedy:
    return logits
  logits = logits / knobs.temperature
  if options.top_k is not None:
    least = jax.lax.top_k(logits, options.top_k)[0][:, -1:]
    logits = jnp.where(logits < least, lowest, logits)
  if options.nucleus:
    ordered = -jnp.sort(-logits, axis=-1)
    probs = jax.nn.softmax(ordered, axis=-1)
    # Kept is what the mass before it leaves short of top_p: one at least.
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = before < knobs.top_p
    least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    logits = jnp.where(logits < least, lowest, logits)
  return logits


def draw_tokens(
  logits: jax.Array,
  options: SamplingOptions,
  knobs: Knobs,
  *,
  key_data: jax.Array,
  seen: jax.Array | None,
  count: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """One token per row, and its log-probability under the model itself.

  Args:
    logits: of the model, float32 [B, V].
    options: see `SamplingOptions`.
    knobs: see `Knobs`.
    key_data: data of each row's key, [B, ...]; a draw depends on it and on
      `count`, and on nothing of other rows.
    seen: tokens that a row holds, bool [B, V]; None without a penalty.
    count: new tokens that a row holds, int32 [B].

  Returns:
    (tokens int32 [B], log-probabilities [B]); the latter before temperature,
    truncation and penalties, as a learner computes them from the same logits.
  """
  shaped = shaped_logits(logits, options, knobs, seen=seen, count=count)
  if options.greedy:
    tokens = jnp.argmax(shaped, axis=-1)
  else:

    def draw(data: jax.Array, n: jax.Array, row: jax.Array) -> jax.Array:
      key = jax.random.wrap_key_data(data, impl=options.key_kind)
      return jax.random.categorical(jax.random.fold_in(key, n), row)

    tokens = jax.vmap(draw)(key_data, count, shaped)
  tokens = tokens.astype(jnp.int32)
  chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
  return tokens, chosen - jax.nn.logsumexp(logits, axis=-1)
