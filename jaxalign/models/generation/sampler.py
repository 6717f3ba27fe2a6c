"""Who generates: this library, or an engine outside that takes its place."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation.generate import Generation, generate


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
    """Continues prompts [B, T] with the policy at `params`."""


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
