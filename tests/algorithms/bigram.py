"""A policy that is a table, so that everything about it is known exactly.

The next token depends on the last one alone; a critic is a vector with a value
per token, or a table with logits over atoms per token. Prompts have two
columns, responses up to three.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxalign.algorithms import policy_config, ppo, ppo_batch
from jaxalign.algorithms.group_weights import WelfareConfig
from jaxalign.algorithms.kl_control import KLConfig
from jaxalign.algorithms.reward_shaping import RewardConfig

V, P, N, K = 5, 2, 3, 2
GROUPS = ("a", "b")
SECTIONS = {
  "policy": dict(
    kind="ppo",
    clip_eps=0.2,
    dual_clip=None,
    entropy_coef=None,
    whiten=True,
    aggregation="token_mean",
    importance_limit=None,
    epochs=1,
    minibatches=1,
    stop_kl=None,
  ),
  "critic": dict(
    kind="separate",
    init_from=None,
    coef=None,
    clip=0.2,
    discount=1.0,
    gae_lambda=0.95,
  ),
  "kl": dict(
    place="reward",
    estimator="k1",
    coef=0.1,
    controller="fixed",
    target=None,
    horizon=None,
  ),
  "reward": dict(
    scale="none",
    clip=None,
    missing_eos=None,
    overlong=None,
    overlong_buffer=None,
    repetition=None,
    repetition_ngram=None,
  ),
  "welfare": dict(
    kind="maxmin",
    shares=None,
    temperature=None,
    step_size=None,
    order=None,
    alpha=None,
    floor=None,
    group=None,
  ),
}
NO_CRITIC = dict(
  kind="none", clip=None, discount=None, gae_lambda=None, coef=None
)
PAIRS = dict(clip_eps=None, whiten=False)
ATOMS = dict(clip=None, num_atoms=7, low=-0.8, high=0.6)
LABELS = {  # a critic of three labels, and what goes with it
  "critic": ATOMS | dict(num_labels=3),
  "reward": dict(scale="standardise"),
  "groups": ("a",),
}
KINDS = {
  "policy": policy_config.PolicyConfig,
  "critic": policy_config.CriticConfig,
  "kl": KLConfig,
  "reward": RewardConfig,
  "welfare": WelfareConfig,
}


def section(name, **changes):
  """One section of the config, with some fields changed."""
  return KINDS[name](**SECTIONS[name] | changes)


def config(groups=GROUPS, **changes):
  """A learner's config; `changes` maps a section to fields."""
  sections = {k: section(k, **changes.get(k, {})) for k in SECTIONS}
  return policy_config.LearnerConfig(**sections, groups=groups)


def _before(batch, width):
  return batch["tokens"][..., -width - 1 : -1], batch["tokens"][..., -width:]


def networks(kind="separate", width=N):
  """Forward passes; the critic is "separate", "shared" or "none"."""

  def read(params, batch):
    before, targets = _before(batch, width)
    log_probs = jax.nn.log_softmax(params["table"])[before]
    picked = jnp.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    values = params["value"][before] if kind == "shared" else None
    return ppo_batch.PolicyOutputs(picked, picked, entropy, values)

  return ppo_batch.Networks(
    actor=lambda params, frozen, batch: read(params, batch),
    reference=lambda frozen, batch: (
      read({**frozen, "value": jnp.zeros(V)}, batch).log_probs
    ),
    critic=(
      (lambda params, batch: params["value"][_before(batch, width)[0]])
      if kind == "separate"
      else None
    ),
  )


def params(seed=0, num_atoms=None):
  """Actor, frozen and critic parameters, float64 under x64."""
  rng = np.random.default_rng(seed)
  values = (V,) if num_atoms is None else (V, num_atoms)
  return (
    {"table": jnp.array(rng.normal(size=(V, V)))},
    {"table": jnp.array(rng.normal(size=(V, V)))},
    {"value": jnp.array(rng.normal(size=values))},
  )


def batch(prompts=8, responses=1, seed=0, groups=K):
  """Scored responses of uneven lengths; one prompt does not count."""
  rng = np.random.default_rng([seed, 1])
  shape = (prompts, responses)
  lengths = rng.integers(1, N + 1, size=shape)
  starts = rng.integers(0, P, size=prompts)
  mask = np.concatenate(
    [
      np.broadcast_to(np.arange(P) >= starts[:, None, None], (*shape, P)),
      np.arange(N) < lengths[..., None],
    ],
    axis=-1,
  )
  where = np.ones(prompts, bool)
  where[2] = False
  return {
    "tokens": jnp.array(rng.integers(0, V, (*shape, P + N)), jnp.int32),
    "mask": jnp.array(mask),
    "sampler_log_probs": jnp.array(-rng.uniform(0, 2, (*shape, N))),
    "ended": jnp.array(lengths < N),
    "scores": jnp.array(rng.normal(size=(*shape, groups))),
    "group": jnp.array(np.arange(prompts) % (groups + 1) - 1, jnp.int32),
    "where": jnp.array(where),
    "row": jnp.arange(prompts, dtype=jnp.int32),
  }


def labelled(batch, num_labels=3, seed=0):
  """The same with label shares, of which the first score is the mean value."""
  rng = np.random.default_rng([seed, 2])
  shape = batch["scores"].shape[:2]
  probs = rng.dirichlet(np.ones(num_labels), size=shape)
  gaps = rng.normal(size=(*shape, num_labels))
  gaps -= (probs * gaps).sum(axis=-1, keepdims=True)
  return batch | {
    "label_probs": jnp.array(probs),
    "label_gaps": jnp.array(gaps),
  }


def batch_of(cfg, prompts):
  """Scored responses as a config needs them."""
  responses = 1 if cfg.policy.kind == "ppo" else 4
  made = batch(prompts, responses, groups=len(cfg.groups))
  return made if cfg.critic.num_labels is None else labelled(made)


def texts(rows=8, length=7, seed=0):
  """Packed texts beside the prompts: two a row, padded; one does not count."""
  rng = np.random.default_rng([seed, 2])
  ends = np.sort(rng.integers(2, length + 1, size=(rows, 2)), axis=1)
  place = np.arange(length)
  segments = np.where(place < ends[:, :1], 1, 2)
  segments = np.where(place < ends[:, 1:], segments, 0)
  where = np.ones(rows, bool)
  where[1] = False
  return {
    "text_tokens": jnp.array(rng.integers(0, V, (rows, length)), jnp.int32),
    "text_segment_ids": jnp.array(segments, jnp.int32),
    "text_mask": jnp.array(segments > 0),
    "text_loss_mask": jnp.array(rng.random((rows, length)) < 0.7),
    "text_where": jnp.array(where),
  }


def text_log_probs(params, batch):
  """Of each token of packed texts given the one before, [R, L - 1]."""
  logs = jax.nn.log_softmax(params["table"])
  return logs[batch["tokens"][:, :-1], batch["tokens"][:, 1:]]


def texts_of(cfg):
  """What a learner reads texts with, None where it reads none."""
  if cfg.policy.text_coef is None:
    return None
  return lambda params, frozen, batch: text_log_probs(params, batch)


def state(cfg, seed=0, optimizers=None, critic="separate"):
  """State before the first iteration and the frozen parameters."""
  actor, frozen, value = params(seed, cfg.critic.num_atoms)
  if critic == "shared":
    actor = actor | value
  return (
    ppo.init_policy_state(
      actor,
      value if critic == "separate" else None,
      optimizers or sgd(),
      cfg,
    ),
    frozen,
  )


def sgd(rate=1.0):
  """Plain descent, so that a step is the gradient."""
  return ppo.Optimizers(optax.sgd(rate), optax.sgd(rate))
