"""Sampling from a policy, with KL and divergence of its answers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.algorithms import ppo_texts, update
from jaxalign.algorithms.ppo_batch import Networks
from jaxalign.data.batching import loader
from jaxalign.data.batching.pair_dataset import Tokenizer
from jaxalign.experiments.datasets import sft as sft_data
from jaxalign.models import Sampler, local_sampler
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation.sampling import Truncation
from jaxalign.ops import checks

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
  """Sampling options of a policy's responses.

  Attributes:
    num_responses: G, responses to each prompt of an iteration.
    max_new_tokens: N, tokens of a response at most, its end included.
    min_new_tokens: tokens before which a response does not end.
    temperature: divides the logits, > 0; the policy that is trained is the one
      at this temperature.
    top_k: tokens kept, None for all. What is cut off is made up for in the loss
      with `truncated_loss` alone, and so for `top_p`; never is what
      `repetition_penalty` changes.
    top_p: mass of the likeliest tokens that is kept, None for all.
    truncated_loss: whether the policy that is trained is what responses are
      drawn from, after `top_k` and `top_p`: ratios, entropy and KL are of it.
      The reference of the KL stays whole. It takes all logits of a response.
    repetition_penalty: of tokens that prompt or response hold; 1 is none.
    end_ids: tokens that end a response beside the ends of the model's folder,
      such as the end of a turn, or the start of a text where the model has
      learned that one begins as the other ends.
  """

  num_responses: int = 1
  max_new_tokens: int
  min_new_tokens: int = 0
  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  truncated_loss: bool = False
  repetition_penalty: float = 1.0
  end_ids: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1, num_responses=self.num_responses, max_new_tokens=self.max_new_tokens
    )
    if not self.temperature > 0:
      raise ValueError(
        f"temperature must be > 0 to learn from samples, got {self.temperature}"
      )
    cuts = self.top_k is not None or self.top_p is not None
    if self.truncated_loss and (not cuts or self.repetition_penalty != 1):
      raise ValueError(
        "truncated_loss needs top_k or top_p, and repetition_penalty=1, got "
        f"{self.top_k}, {self.top_p} and {self.repetition_penalty}"
      )

  @property
  def truncation(self) -> Truncation | None:
    """What the loss makes up for, None for nothing."""
    return Truncation(self.top_k, self.top_p) if self.truncated_loss else None


def ends_of(
  end_ids: Sequence[int], tokenizer: Tokenizer, network: DecoderConfig
) -> tuple[int, ...]:
  """The tokens that end a response.

  Args:
    end_ids: of a stage's config.
    tokenizer: the policy's, with what generation_config.json says.
    network: the policy's description, with what config.json says.

  Returns:
    Those of all three, each once, the tokenizer's own end first.

  Raises:
    ValueError: the tokenizer has no such token.
  """
  for token in end_ids:
    if not 0 <= token < tokenizer.vocab_size:
      raise ValueError(
        f"end_ids must be in [0, {tokenizer.vocab_size}), got {token}"
      )
  return tuple(dict.fromkeys((*tokenizer.ends, *network.eos_ids, *end_ids)))


def make_sampler(
  network: DecoderConfig,
  config: SamplingConfig,
  *,
  eos_ids: Sequence[int],
  pad_id: int,
) -> Sampler:
  """The library's own sampler, as the section wants it.

  Args:
    network: the decoder's description.
    config: the section.
    eos_ids: tokens that end a response.
    pad_id: id under the mask.

  Returns:
    The sampler.
  """
  return local_sampler(
    network,
    max_new_tokens=config.max_new_tokens,
    min_new_tokens=config.min_new_tokens,
    temperature=config.temperature,
    top_k=config.top_k,
    top_p=config.top_p,
    repetition_penalty=config.repetition_penalty,
    eos_ids=tuple(eos_ids),
    pad_id=pad_id,
  )


def make_sample(
  sampler: Sampler,
  policy_of: Callable[[Tree, Tree], Tree],
  *,
  num_responses: int,
  eos_ids: Sequence[int],
) -> Callable[..., dict[str, jax.Array]]:
  """`(actor params, frozen, prompts, key) -> rollout`, pure.

  A row's key is that of (key, its place among all responses), so that its
  tokens depend on neither devices nor batch mates.

  Args:
    sampler: continues prompts with the policy.
    policy_of: see `networks.Trainable`.
    num_responses: G.
    eos_ids: tokens that end a response.

  Returns:
    The function. Its rollout holds `tokens` and `mask` [R, G, P + N] with
    `sampler_log_probs` [R, G, N] and `ended` [R, G].
  """

  def sample(
    params: Tree, frozen: Tree, batch: update.Batch, key: jax.Array
  ) -> dict[str, jax.Array]:
    prompts = batch["prompts"], batch["prompt_mask"]
    among = jnp.arange(num_responses, dtype=batch["row"].dtype)
    places = batch["row"][:, None] * num_responses + among[None]
    keys = update.row_keys(key, places.reshape(-1)).reshape(places.shape)
    out = sampler(policy_of(params, frozen), *prompts, keys=keys)
    tokens, mask = (jnp.repeat(x, num_responses, axis=0) for x in prompts)
    grouped = lambda x: x.reshape(-1, num_responses, *x.shape[1:])
    ends = jnp.zeros_like(out.mask)
    for token in eos_ids:
      ends = ends | (out.tokens == token)
    join = lambda a, b: grouped(jnp.concatenate([a, b], axis=1))
    return {
      "tokens": join(tokens, out.tokens),
      "mask": join(mask, out.mask),
      "sampler_log_probs": grouped(out.log_probs),
      "ended": grouped(jnp.any(ends & out.mask, axis=1)),
    }

  return sample


class Compared(NamedTuple):
  """Responses under the policy and under the reference, [R, G] each, in nats.

  Attributes:
    kl: the log-ratio of each response.
    nll: of each response under the reference, a sum over its tokens.
  """

  kl: jax.Array
  nll: jax.Array


def make_compare(
  networks: Networks, max_new_tokens: int
) -> Callable[[Tree, Tree, update.Batch], Compared]:
  """`(actor params, frozen, rollout) -> Compared`."""

  def compare(params: Tree, frozen: Tree, batch: update.Batch) -> Compared:
    own = networks.actor(params, frozen, batch).log_probs
    reference = networks.reference(frozen, batch)
    counted = batch["mask"][..., -max_new_tokens:]
    summed = lambda x: jnp.sum(jnp.where(counted, x, 0.0), axis=-1)
    return Compared(summed(own - reference), -summed(reference))

  return compare


def rollout_shapes(
  num_prompts: int,
  prompt_length: int,
  sampling: SamplingConfig,
  groups: int,
  num_labels: int | None = None,
  text_length: int | None = None,
) -> dict[str, loader.ArraySpec]:
  """Shapes and dtypes of an iteration's scored responses, and of its texts.

  Args:
    num_prompts: R.
    prompt_length: P.
    sampling: with G and N.
    groups: K.
    num_labels: d of a critic of labels, None of others.
    text_length: tokens of a row of packed texts, None where none are read.
  """
  shape = (num_prompts, sampling.num_responses)
  wide = prompt_length + sampling.max_new_tokens
  array = lambda dtype, *shape: loader.ArraySpec(shape, np.dtype(dtype))
  found: dict[str, loader.ArraySpec] = {}
  if num_labels is not None:
    probs = array(np.float32, *shape, num_labels)
    found = {"label_probs": probs, "label_gaps": probs}
  if text_length is not None:
    found |= ppo_texts.named(sft_data.text_shapes(num_prompts, text_length))
  return found | {
    "tokens": array(np.int32, *shape, wide),
    "mask": array(np.bool_, *shape, wide),
    "sampler_log_probs": array(np.float32, *shape, sampling.max_new_tokens),
    "ended": array(np.bool_, *shape),
    "scores": array(np.float32, *shape, groups),
    "group": array(np.int32, num_prompts),
    "where": array(np.bool_, num_prompts),
    "row": array(np.int32, num_prompts),
  }
