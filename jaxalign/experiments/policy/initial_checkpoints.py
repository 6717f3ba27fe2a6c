"""Initial checkpoints for reference and critic, where not the policy's own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.runtime.io import filesystem

SCORE, VALUE, LANGUAGE_HEAD = "score", "value", "lm_head"
Tree = Any  # nested dict of arrays, shapes or shardings

# What a config may say otherwise of the same function of the same parameters,
# and sizes of tables, which are compared tensor by tensor.
FREE = frozenset(
  {
    "attention",
    "bos_id",
    "dropout",
    "dtype",
    "eos_id",
    "max_positions",
    "num_outputs",
    "num_values",
    "pad_id",
    "param_dtype",
    "remat",
    "tie_embeddings",
    "unroll",
    "value_head",
    "vocab_size",
  }
)


def check_vocabulary(name: str, folder: str, tokenizer: Tokenizer) -> None:
  """Checks that a token of the policy is the same text to another folder.

  Tokens that the folder alone has do no harm: the policy never writes them.

  Args:
    name: of the config key, for errors.
    folder: with a tokenizer; variables are expanded.
    tokenizer: the policy's.

  Raises:
    ValueError: there is no tokenizer, or a token has another id in it, by the
      first id that differs.
  """
  found = tokenizer_files.load_tokenizer(
    filesystem.resolved(folder, weights=False)
  )
  theirs, ours = ({**one.fast.get_vocab()} for one in (found, tokenizer))
  other = [token for token in ours if theirs.get(token) != ours[token]]
  if other:
    first = min(other, key=ours.__getitem__)
    raise ValueError(
      f"{name}: the tokenizer of {folder} has "
      f"{found.fast.convert_ids_to_tokens(ours[first])!r} as token "
      f"{ours[first]}, the policy's {first!r}; they differ in {len(other)} of "
      f"{len(ours)} tokens and both must be the same"
    )


def num_outputs_of(
  name: str,
  folder: str,
  network: DecoderConfig,
  tokenizer: Tokenizer,
) -> int | None:
  """How many rewards a folder gives, None for a language model.

  Args:
    name: of the config key, for errors.
    folder: of Hugging Face layout; variables are expanded.
    network: the policy's decoder, which the folder must hold too.
    tokenizer: the policy's.

  Returns:
    `num_outputs` of its config.

  Raises:
    FileNotFoundError: there is no config.json.
    ValueError: its decoder is another one, by the first field that differs, or
      its vocabulary.
  """
  found = weights.load_config(filesystem.resolved(folder, weights=False))
  for field in dataclasses.fields(DecoderConfig):
    theirs, ours = (one.__dict__[field.name] for one in (found, network))
    if field.name not in FREE and theirs != ours:
      raise ValueError(
        f"{name}: {folder} has {field.name} {theirs!r}, the policy {ours!r}; "
        "both must be the same decoder"
      )
  check_vocabulary(name, folder, tokenizer)
  return found.num_outputs


def check_reference(
  folder: str, network: DecoderConfig, tokenizer: Tokenizer
) -> None:
  """Raises ValueError unless a folder holds a policy like the trained one."""
  if num_outputs_of("reference", folder, network, tokenizer) is not None:
    raise ValueError(
      f"reference: {folder} holds a reward model, not a language model"
    )


def is_reward_model(
  folder: str, network: DecoderConfig, tokenizer: Tokenizer
) -> bool:
  """Whether a critic starts from a reward model rather than a language model.

  Args:
    folder: `critic.init_from`.
    network: the policy's decoder.
    tokenizer: the policy's.

  Raises:
    ValueError: another decoder or vocabulary, or a reward model of several
      outputs.
  """
  number = num_outputs_of("critic.init_from", folder, network, tokenizer)
  if number is not None and number > 1:
    raise ValueError(
      f"critic.init_from: {folder} gives {number} rewards; a critic, which "
      "predicts one return, starts from a reward model of one output or from "
      "a language model"
    )
  return number is not None


def critic_of_reward_model(
  folder: str, network: DecoderConfig, shardings: Tree
) -> Tree:
  """A critic whose value at a token is the reward of the text up to it.

  The reward head becomes the value head. A critic's language head, where the
  embeddings are not tied, is read by nothing; no reward model has one, so it
  is zero.

  Args:
    folder: a reward model of one output.
    network: the policy's decoder, with a value head.
    shardings: of the critic's parameters.

  Returns:
    The critic's parameters, in units of the model's uncalibrated reward.
  """
  ours = {VALUE, LANGUAGE_HEAD}
  rest = {name: part for name, part in shardings.items() if name not in ours}
  params = weights.load_params(
    filesystem.resolved(folder),
    dataclasses.replace(network, num_outputs=1, value_head=False),
    shardings={**rest, SCORE: shardings[VALUE]},
  )
  critic = {name: params[name] for name in rest}
  critic[VALUE] = params[SCORE]
  if LANGUAGE_HEAD in shardings:
    shape = (network.embed_dim, network.vocab_size)
    critic[LANGUAGE_HEAD] = {
      "kernel": jax.jit(
        lambda: jnp.zeros(shape, jnp.dtype(network.param_dtype)),
        out_shardings=shardings[LANGUAGE_HEAD]["kernel"],
      )()
    }
  return critic
