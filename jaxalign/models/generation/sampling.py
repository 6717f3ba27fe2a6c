"""Token sampling: temperature, top-k, top-p, and the log-probability."""

import dataclasses
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.models import blocks, decoder
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks


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
  return truncated(
    logits / knobs.temperature,
    top_k=options.top_k,
    top_p=knobs.top_p if options.nucleus else None,
  )


def truncated(
  logits: jax.Array, *, top_k: int | None, top_p: jax.Array | float | None
) -> jax.Array:
  """Logits of the tokens that top-k and then top-p keep.

  Args:
    logits: float [..., V].
    top_k: tokens kept, with those as likely as the last; None for all.
    top_p: mass of the likeliest tokens that is kept; None for all.

  Returns:
    [..., V], the lowest number where a token is cut off.
  """
  lowest = jnp.finfo(logits.dtype).min
  if top_k is not None:
    least = jax.lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits < least, lowest, logits)
  if top_p is not None:
    ordered = -jnp.sort(-logits, axis=-1)
    probs = jax.nn.softmax(ordered, axis=-1)
    # Kept is what the mass before it leaves short of top_p: one at least.
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = before < top_p
    least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    logits = jnp.where(logits < least, lowest, logits)
  return logits


class Truncation(NamedTuple):
  """What a sampler keeps of the vocabulary.

  Attributes:
    top_k: tokens kept, None for all.
    top_p: mass of the likeliest tokens that is kept, None for all.
  """

  top_k: int | None
  top_p: float | None


def truncated_log_probs(
  config: DecoderConfig,
  params: Any,
  hidden: jax.Array,
  tokens: jax.Array,
  truncation: Truncation,
  *,
  temperature: float = 1.0,
  columns: int = 16,
) -> jax.Array:
  """Log-probability of each token under what a truncating sampler draws from.

    log q = z_y − log Σ_{v ∈ S ∪ {y}} exp z_v,   z = logits / T

  S is what top-k and top-p keep of softmax(z). Which tokens these are is not
  differentiated. The token itself always counts, so that one which S has lost
  since it was drawn is unlikely and not impossible.

  Args:
    config: of a language model.
    params: its parameters.
    hidden: what the head reads, [B, T, D], as `LanguageOutput` has it.
    tokens: int [B, T].
    truncation: see `Truncation`.
    temperature: T > 0.
    columns: places of T whose logits exist at the same time.

  Returns:
    [B, T], float32 or wider.

  Raises:
    TypeError, ValueError: an argument has the wrong type or shape.
  """
  checks.floating(hidden=hidden)
  checks.integer(tokens=tokens)
  checks.same_shape(tokens=tokens, places=hidden[..., 0])
  dtype, wide = jnp.dtype(config.dtype), blocks.wide_dtype(config)
  if config.tie_embeddings:
    table = params["embed"]["tokens"].T
  else:
    table = params["lm_head"]["kernel"]
  table = table.astype(dtype)
  batch, length = tokens.shape
  number = -(-length // columns)
  spare = number * columns - length

  def parts(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, ((0, 0), (0, spare)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(batch, number, columns, *x.shape[2:]), 1, 0)

  # The backward pass takes the logits of a part again.
  @jax.checkpoint
  def read(part: tuple[jax.Array, jax.Array]) -> jax.Array:
    places, wanted = part
    logits = jnp.einsum(
      "bcd,dv->bcv", places.astype(dtype), table, preferred_element_type=wide
    )
    logits = decoder.capped(logits, config) / temperature
    lowest = jnp.finfo(logits.dtype).min
    kept = truncated(jax.lax.stop_gradient(logits), **truncation._asdict())
    vocabulary = jnp.arange(logits.shape[-1], dtype=wanted.dtype)
    own = vocabulary[None, None] == wanted[..., None]
    mass = jax.nn.logsumexp(
      jnp.where((kept > lowest) | own, logits, 0.7 * lowest), axis=-1
    )
    return jnp.sum(jnp.where(own, logits, 0.0), axis=-1) - mass

  found = jax.lax.map(read, (parts(hidden), parts(tokens)))
  return jnp.moveaxis(found, 0, 1).reshape(batch, -1)[:, :length]


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
