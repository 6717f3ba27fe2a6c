"""Networks of `train_policy`: policy, reference and critic on one decoder.

Without adapters the policy is trained as a whole and the reference is a frozen
copy, or another policy of the same decoder. With adapters the frozen parameters
are the base of both, and the reference is the policy with its adapters off.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.algorithms.policy_config import CriticConfig
from jaxalign.algorithms.ppo_batch import Networks, PolicyOutputs
from jaxalign.algorithms.update import Batch
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.policy import initial_checkpoints, likelihood
from jaxalign.models import heads, lora, token_log_probs
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation import sampling

ADAPTERS, VALUE = "adapters", "value"
Tree = Any  # nested dict of arrays, shapes or shardings


class Trainable(NamedTuple):
  """What the parts of a policy run are made of.

  Attributes:
    network: decoder of policy and reference.
    params: shapes of the policy's trainable parameters.
    axes: their logical axes.
    frozen_params: shapes of the reference, or of the adapters' base.
    frozen_axes: their logical axes.
    critic_params: shapes of a critic of its own, or None.
    critic_axes: their logical axes, or None.
    networks: the forward passes.
    policy_of: `(trainable, frozen) -> parameters` of `network`.
    init_policy: `(key, shardings) -> trainable parameters`.
    init_frozen: `(key, shardings) -> frozen parameters`; the same key gives
      those that `init_policy` starts from, unless the reference is another.
    init_critic: `(key, shardings) -> parameters`.
    texts: `(trainable, frozen, batch) -> log-probabilities` of packed texts.
  """

  network: DecoderConfig
  params: Tree
  axes: Tree
  frozen_params: Tree
  frozen_axes: Tree
  critic_params: Tree | None
  critic_axes: Tree | None
  networks: Networks
  policy_of: Callable[[Tree, Tree], Tree]
  init_policy: Callable[[jax.Array, Tree], Tree]
  init_frozen: Callable[[jax.Array, Tree], Tree]
  init_critic: Callable[[jax.Array, Tree], Tree]
  texts: Callable[[Tree, Tree, Batch], jax.Array]


def response_reader(
  network: DecoderConfig,
  model: heads.Model,
  *,
  temperature: float,
  max_new_tokens: int,
  entropy: bool,
  truncation: sampling.Truncation | None = None,
) -> Callable[[Tree, Batch], PolicyOutputs]:
  """`(params, batch) -> PolicyOutputs` of the last N tokens of each row.

  The column before the first response token predicts it, for prompts are padded
  on the left: column P - 1 is the last prompt token of every row.

  Args:
    network: of a language model.
    model: its functions; with a value head it gives values.
    temperature: by which a sampler divides the logits, > 0.
    max_new_tokens: N.
    entropy: whether to compute it, at the price of all logits.
    truncation: what a sampler keeps of the vocabulary, where the policy is what
      that leaves; None for all of it.

  Returns:
    The function, for `tokens` and `mask` [R, G, P + N].
  """

  def read(params: Tree, batch: Batch) -> PolicyOutputs:
    tokens, mask = batch["tokens"], batch["mask"]
    rows = lambda x: x.reshape(-1, x.shape[-1])
    back = lambda x: x.reshape(*tokens.shape[:2], *x.shape[1:])
    out = model.apply(params, rows(tokens), rows(mask))
    before = slice(-max_new_tokens - 1, -1)
    hidden, targets = out.hidden[:, before], rows(tokens)[:, -max_new_tokens:]
    # The head is linear: logits of hidden / T are logits / T.
    at = lambda t: token_log_probs(network, params, hidden / t, targets)
    model_log_probs = at(1.0)
    if truncation is not None:
      log_probs = sampling.truncated_log_probs(
        network, params, hidden, targets, truncation, temperature=temperature
      )
    elif temperature == 1:
      log_probs = model_log_probs
    else:
      log_probs = at(temperature)
    spread = None
    if entropy:
      logits = out.logits[:, before] / temperature
      if truncation is not None:
        logits = sampling.truncated(logits, **truncation._asdict())
      logits = jax.nn.log_softmax(logits)
      spread = back(-jnp.sum(jnp.exp(logits) * logits, axis=-1))
    values = None if out.values is None else back(out.values[:, before])
    return PolicyOutputs(back(log_probs), back(model_log_probs), spread, values)

  return read


def _starts_from_rewards(
  model_config: backbone.BackboneConfig,
  critic: CriticConfig,
  network: DecoderConfig,
  tokenizer: Tokenizer,
  reference: str | None,
) -> bool:
  """Whether the critic starts from a reward model; see `make_networks`.

  Raises:
    ValueError: as `make_networks`.
  """
  if network.dropout > 0:
    raise ValueError(
      "model.dropout must be 0 for a policy, whose log-probabilities would not "
      f"be those it sampled with, got {network.dropout}"
    )
  rewarded = (
    critic.init_from is not None
    and initial_checkpoints.is_reward_model(
      critic.init_from, network, tokenizer
    )
  )
  if rewarded and critic.num_atoms is not None:
    raise ValueError(
      "critic.num_atoms must be None where critic.init_from is a reward model, "
      f"whose head predicts one number, got {critic.num_atoms}"
    )
  if reference is not None:
    if model_config.lora is not None:
      raise ValueError(
        "reference must be None with model.lora, which takes the policy with "
        f"its adapters off, got {reference!r}"
      )
    initial_checkpoints.check_reference(reference, network, tokenizer)
  return rewarded


def make_networks(
  model_config: backbone.BackboneConfig,
  critic: CriticConfig,
  network: DecoderConfig,
  tokenizer: Tokenizer,
  *,
  temperature: float,
  max_new_tokens: int,
  entropy: bool,
  reference: str | None = None,
  truncation: sampling.Truncation | None = None,
) -> Trainable:
  """Everything that `train_policy` trains or reads, undrawn.

  Args:
    model_config: where policy and reference start, and what is adapted.
    critic: none, a head on the policy's trunk, or a network of its own.
    network: decoder of the policy.
    tokenizer: the policy's.
    temperature: of the sampler.
    max_new_tokens: of a response.
    entropy: whether the policy's entropy is computed.
    reference: folder of the policy that KL is measured from; None for where
      this one starts.
    truncation: what the sampler keeps of the vocabulary, where the loss is to
      make up for it.

  Returns:
    See `Trainable`.

  Raises:
    ValueError: the policy drops out activations, so that what is learned from
      is not what was sampled from; the folder of critic or reference holds
      another decoder or vocabulary or does not do as one; a reference beside
      adapters; or atoms beside a reward model that the critic starts from.
  """
  rewarded = _starts_from_rewards(
    model_config, critic, network, tokenizer, reference
  )
  adapters = model_config.lora
  model = heads.causal_lm(network)
  valued_network = dataclasses.replace(
    network, value_head=True, num_values=critic.num_atoms or 1
  )
  valued = heads.causal_lm(valued_network)
  shared = critic.kind == "shared"
  reader = lambda m, truncation=None: response_reader(
    network,
    m,
    temperature=temperature,
    max_new_tokens=max_new_tokens,
    entropy=entropy,
    truncation=truncation,
  )
  read_actor = reader(valued if shared else model, truncation)
  read_reference, read_critic = reader(model), reader(valued)

  def policy_of(trainable: Tree, frozen: Tree) -> Tree:
    if adapters is not None:
      return lora.merge(frozen, trainable[ADAPTERS], network, adapters)
    return without_value(trainable)

  def with_value(trainable: Tree, frozen: Tree) -> Tree:
    params = policy_of(trainable, frozen)
    return {**params, VALUE: trainable[VALUE]} if shared else params

  start = valued if shared else model
  params, axes = backbone.abstract_params(start), start.axes
  if adapters is not None:
    drawn = jax.eval_shape(
      lambda key: lora.init_adapters(key, network, adapters),
      jax.eval_shape(lambda: jax.random.key(0)),
    )
    value = {VALUE: params[VALUE]} if shared else {}
    params = {ADAPTERS: drawn, **value}
    axes = {ADAPTERS: lora.adapter_axes(network, adapters)}
    axes |= {VALUE: valued.axes[VALUE]} if shared else {}

  def init_start(key: jax.Array, shardings: Tree) -> Tree:
    return backbone.initial_params(model_config, network, model, key, shardings)

  def init_frozen(key: jax.Array, shardings: Tree) -> Tree:
    start = _from_folder(model_config, reference)
    return backbone.initial_params(start, network, model, key, shardings)

  def init_policy(key: jax.Array, shardings: Tree) -> Tree:
    value = {}
    if shared:
      value = {VALUE: _zero_head(valued_network, shardings[VALUE])}
    if adapters is None:
      return {**init_start(key, without_value(shardings)), **value}
    # A key of its own: the base is drawn from `key` itself.
    drawn = jax.random.fold_in(key, 1)
    return {ADAPTERS: lora.init_adapters(drawn, network, adapters), **value}

  def init_critic(key: jax.Array, shardings: Tree) -> Tree:
    if rewarded:
      return initial_checkpoints.critic_of_reward_model(
        critic.init_from, network, shardings
      )
    start = _from_folder(model_config, critic.init_from)
    if start.init_from is not None:
      return backbone.initial_params(
        start, valued_network, valued, key, shardings
      )
    # The policy's program, and a head that begins at 0.
    trunk = init_start(key, without_value(shardings))
    return {**trunk, VALUE: _zero_head(valued_network, shardings[VALUE])}

  own = critic.kind == "separate"
  read_texts = likelihood.answer_log_probs(network, model, dropout=False)
  values = lambda params, batch: read_critic(params, batch).values
  return Trainable(
    network=network,
    params=params,
    axes=axes,
    frozen_params=backbone.abstract_params(model),
    frozen_axes=model.axes,
    critic_params=backbone.abstract_params(valued) if own else None,
    critic_axes=valued.axes if own else None,
    networks=Networks(
      actor=lambda params, frozen, batch: read_actor(
        with_value(params, frozen), batch
      ),
      reference=lambda frozen, batch: read_reference(frozen, batch).log_probs,
      critic=values if own else None,
      sampler_agrees=temperature == 1 and truncation is None,
    ),
    policy_of=policy_of,
    init_policy=init_policy,
    init_frozen=init_frozen,
    init_critic=init_critic,
    texts=lambda trainable, frozen, batch: read_texts(
      policy_of(trainable, frozen), batch
    ),
  )


def _zero_head(network: DecoderConfig, shardings: Tree) -> Tree:
  """A value head that predicts 0."""
  shape = network.embed_dim, network.num_values
  dtype = jnp.dtype(network.param_dtype)
  return {"kernel": jnp.zeros(shape, dtype, device=shardings["kernel"])}


def _from_folder(
  config: backbone.BackboneConfig, folder: str | None
) -> backbone.BackboneConfig:
  if folder is None:
    return config
  return dataclasses.replace(config, init_from=folder, architecture=None)


def without_value(tree: Mapping[str, Any]) -> dict[str, Any]:
  """A policy's parameters, or what goes with them, less its value head."""
  return {name: part for name, part in tree.items() if name != VALUE}
