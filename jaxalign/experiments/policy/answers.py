"""Policy answers: a policy's folder as a function from prompts to texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.data.batching import prompt_dataset as prompt_rows
from jaxalign.data.records.chat import Text
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.policy import sampling
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation.generate import bucket, generate
from jaxalign.models.hf import weights
from jaxalign.ops import checks
from jaxalign.runtime.io import filesystem


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """Sampling options of answers: temperature, top-k, top-p, length.

  Attributes:
    max_prompt_length: tokens of a prompt; longer ones lose their beginning.
    max_new_tokens: of an answer.
    temperature: of the tokens; 0 is greedy.
    top_k: tokens kept, None for all.
    top_p: mass of the likeliest tokens kept, None for all.
    batch_size: answers drawn at a time.
    dtype: compute type, "float32" or "bfloat16".
    end_ids: tokens that end an answer beside the ends of the model's folder,
      as those that the policy was trained with.
  """

  max_prompt_length: int
  max_new_tokens: int
  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  batch_size: int = 64
  dtype: str = "float32"
  end_ids: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      max_prompt_length=self.max_prompt_length,
      max_new_tokens=self.max_new_tokens,
      batch_size=self.batch_size,
    )


class Answerer:
  """A language model that answers prompts; pure in prompt, key and number."""

  def __init__(self, folder: str, config: SamplingConfig, key: jax.Array):
    """Reads the folder.

    Args:
      folder: a language model in Hugging Face layout with its tokenizer.
      config: how answers are drawn.
      key: typed key of all answers.

    Raises:
      ValueError: the folder holds a reward model, prompt and answer exceed its
        positions, or an end is no token of its tokenizer, or its tokenizer has
        tokens that it does not embed.
    """
    folder = filesystem.resolved(folder)
    network = weights.load_config(folder)
    if network.num_outputs is not None:
      raise ValueError(f"{folder} holds a reward model, which cannot answer")
    room = config.max_prompt_length + config.max_new_tokens
    # `generate` pads a prompt to its bucket, which has to fit as well.
    longest = bucket(config.max_prompt_length)
    if longest + config.max_new_tokens > network.max_positions:
      raise ValueError(
        f"max_prompt_length + max_new_tokens = {room}, prompts padded to "
        f"{longest}, exceed the {network.max_positions} positions of {folder}"
      )
    self._tokenizer = tokenizer_files.load_tokenizer(folder)
    self._tokenizer.check_embedded(network.vocab_size, folder)
    self._ends = sampling.ends_of(config.end_ids, self._tokenizer, network)
    self._network: DecoderConfig = dataclasses.replace(
      network, dtype=config.dtype
    )
    self._params: Any = weights.load_params(folder, self._network)
    self._config = config
    self._key = key

  def __call__(
    self, prompts: Sequence[Text], numbers: Sequence[int]
  ) -> list[str]:
    """One answer to each prompt.

    Args:
      prompts: B prompts.
      numbers: B numbers that tell the draws apart: equal prompts with equal
        numbers get equal answers.

    Returns:
      B texts, without markers.
    """
    found: list[str] = []
    size = self._config.batch_size
    for start in range(0, len(prompts), size):
      part = slice(start, start + size)
      found += self._batch(prompts[part], numbers[part])
    return found

  def _batch(
    self, prompts: Sequence[Text], numbers: Sequence[int]
  ) -> list[str]:
    config, tokenizer = self._config, self._tokenizer
    ids, mask = prompt_rows.padded_prompts(
      prompts,
      tokenizer,
      length=config.max_prompt_length,
      num_rows=config.batch_size,
    )
    filled = np.zeros(config.batch_size, np.uint32)
    filled[: len(numbers)] = numbers
    made = generate(
      self._network,
      self._params,
      ids,
      mask,
      keys=jax.vmap(lambda n: jax.random.fold_in(self._key, n))(filled),
      max_new_tokens=config.max_new_tokens,
      temperature=config.temperature,
      top_k=config.top_k,
      top_p=config.top_p,
      eos_ids=self._ends,
      pad_id=tokenizer.pad_id,
    )
    rows, counted = np.asarray(made.tokens), np.asarray(made.mask)
    return [
      tokenizer.decode_response(
        prompts[i], ids[i][mask[i]].tolist(), rows[i][counted[i]].tolist()
      )
      for i in range(len(prompts))
    ]
