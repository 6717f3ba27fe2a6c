"""Programs of a policy run, jitted and laid out over a mesh."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.algorithms import ppo, ppo_texts, train_state
from jaxalign.algorithms.policy_config import LearnerConfig
from jaxalign.algorithms.ppo_batch import PolicyState
from jaxalign.data.batching import loader
from jaxalign.experiments.policy import networks
from jaxalign.experiments.policy import sampling as policy_sampling
from jaxalign.models import activations
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation.generate import bucket
from jaxalign.runtime import background_compile
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import step_guard
from jaxalign.runtime.profiling import memory

Tree = Any


class PolicyStage(NamedTuple):
  """What the loop, the compile stage, golden tests and benchmarks all call.

  Attributes:
    sample: jitted `(actor params, frozen, prompts, key) -> rollout`.
    learn: jitted `(state, frozen, batch, key) -> (state, metrics)`; donates the
      state.
    compare: jitted `(actor params, frozen, rollout) -> sampling.Compared`.
    merge: jitted `(actor params, frozen) -> parameters` of the policy.
    state: abstract PolicyState with shardings.
    frozen: abstract parameters that are never trained, with shardings.
    prompts: abstract batch of prompts with shardings.
    batch: abstract batch of scored responses with shardings.
    init: `key -> state`.
    init_frozen: `key -> frozen`, with the same key.
    network: the policy's description.
    traces: how often each program was traced.
    epochs: passes that learning makes over an iteration's tokens.
  """

  sample: Callable[..., dict[str, jax.Array]]
  learn: Callable[..., Any]
  compare: Callable[..., policy_sampling.Compared]
  merge: Callable[..., Tree]
  state: PolicyState
  frozen: Tree
  prompts: dict[str, jax.ShapeDtypeStruct]
  batch: dict[str, jax.ShapeDtypeStruct]
  init: Callable[[jax.Array], PolicyState]
  init_frozen: Callable[[jax.Array], Tree]
  network: DecoderConfig
  traces: dict[str, step_guard.TraceCounter]
  epochs: int

  def lower(self) -> jax.stages.Lowered:
    """The learning program for its abstract arguments, ready to compile.

    Raises:
      ValueError: it runs under pmap, which compiles for devices that are there.
    """
    if not hasattr(self.learn, "lower"):
      raise ValueError("train.parallel must be 'jit' to compile ahead of time")
    key = jax.eval_shape(lambda: jax.random.key(0))
    return self.learn.lower(self.state, self.frozen, self.batch, key)

  def compiling(self) -> "PolicyStage":
    """The stage, whose learning program is compiled on another thread."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    learn = background_compile.BackgroundCompiled(
      self.learn, self.state, self.frozen, self.batch, key
    )
    return self._replace(learn=learn)

  def lower_sample(self) -> jax.stages.Lowered:
    """The sampling program for its abstract arguments, ready to compile."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return self.sample.lower(
      self.state.actor.params, self.frozen, self.prompts, key
    )

  def programs(self) -> tuple[memory.Program, ...]:
    """What the compile stage compiles: sampling, then learning.

    FLOPs are those of every network over every token: one pass forward to
    sample, a prompt once for all its responses, one of policy, reference and
    critic to prepare, and one forward and backward of what is trained per
    epoch.
    """
    actor, critic = self.state.actor, self.state.critic
    own = isinstance(critic, train_state.TrainState)
    flops_of = lambda passes: memory.batch_flops(
      self.network, self.batch, passes
    )
    trained = 2 if own else 1
    spared = (self.batch["tokens"].shape[1] - 1) * memory.batch_flops(
      self.network, self.prompts, {"prompts": ("forward",)}
    )
    sampling = memory.Program(
      "sample",
      self.lower_sample,
      {
        "parameters": (actor.params, self.frozen),
        "batch": self.prompts,
        "kv_cache": self._cache(),
      },
      self.prompts["prompts"].shape,
      flops_of(memory.FORWARD) - spared,
    )
    bare = lambda state: state._replace(params=())
    learning = memory.Program(
      "learn",
      self.lower,
      {
        "parameters": (
          actor.params,
          critic.params if own else (),
          self.frozen,
        ),
        "optimizer": self.state._replace(
          actor=bare(actor), critic=bare(critic) if own else ()
        ),
        "batch": self.batch,
      },
      self.batch["tokens"].shape,
      (1 + trained) * flops_of(memory.FORWARD)
      + self.epochs * trained * flops_of(memory.TRAINING)
      + self.epochs * self._text_flops(),
    )
    return sampling, learning

  def _text_flops(self) -> float:
    """Of one pass over the texts beside the responses, 0 without any."""
    name = ppo_texts.PREFIX + "tokens"
    if name not in self.batch:
      return 0.0
    passes = {name: memory.TRAINING["tokens"]}
    return memory.batch_flops(self.network, self.batch, passes)

  def _cache(self) -> jax.ShapeDtypeStruct:
    """Keys and values of all layers while the responses are sampled."""
    config, rows = self.network, self.prompts["where"].sharding
    new = self.batch["sampler_log_probs"].shape[-1]
    *batch, length = self.batch["tokens"].shape
    split = config.num_kv_heads % rows.mesh.shape["tensor"] == 0
    spec = PartitionSpec(None, rows.spec[0], "tensor" if split else None)
    return jax.ShapeDtypeStruct(
      (
        2 * config.num_layers,
        math.prod(batch),
        config.num_kv_heads,
        bucket(length - new) + new,
        config.head_dim,
      ),
      config.dtype,
      sharding=NamedSharding(rows.mesh, spec),
    )


def make_stage(
  made: networks.Trainable,
  sample: Callable[..., dict[str, jax.Array]],
  learner: LearnerConfig,
  optimizers: ppo.Optimizers,
  shapes: tuple[dict[str, loader.ArraySpec], dict[str, loader.ArraySpec]],
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
  *,
  accumulation: int,
  parallel: str,
) -> PolicyStage:
  """The programs, jitted and laid out.

  Args:
    made: networks and how their parameters begin.
    sample: see `sampling.make_sample`.
    learner: what is learned.
    optimizers: a chain for each trained network.
    shapes: of prompts and of scored responses.
    mesh: devices, real or abstract.
    rules: overrides of the logical table.
    accumulation: micro-batches per optimiser step.
    parallel: "jit" or "pmap", of learning; sampling is sharded in both.

  Returns:
    The stage.
  """
  table = meshes.logical_table(rules)
  rows, everywhere = meshes.batch_sharding(mesh), meshes.replicated(mesh)
  frozen = meshes.parameter_shardings(
    made.frozen_axes, made.frozen_params, mesh, rules
  )
  start = lambda actor, critic: ppo.init_policy_state(
    actor, critic, optimizers, learner
  )
  state = jax.eval_shape(start, made.params, made.critic_params)
  shardings = _state_shardings(made, state, optimizers, mesh, rules)
  pmap = parallel == "pmap"
  traces = {
    "sample": step_guard.TraceCounter(sample),
    "learn": step_guard.TraceCounter(
      ppo.make_learn(
        made.networks,
        optimizers,
        learner,
        accumulation=accumulation,
        axis_name="data" if pmap else None,
        spread=lambda batch: (
          jax.lax.with_sharding_constraint(batch, rows) if not pmap else batch
        ),
        texts=None if learner.policy.text_coef is None else made.texts,
      )
    ),
    "compare": step_guard.TraceCounter(
      policy_sampling.make_compare(
        made.networks, shapes[1]["sampler_log_probs"].shape[-1]
      )
    ),
  }
  laid_out = lambda name: activations.laid_out(traces[name], mesh, table)
  if pmap:
    mapped = meshes.data_parallel(
      lambda state, batch, rest: traces["learn"](
        state, rest[0], batch, rest[1]
      ),
      mesh,
    )
    learning = lambda state, frozen, batch, key: mapped(
      state, batch, (frozen, key)
    )
  else:
    learning = jax.jit(
      laid_out("learn"),
      in_shardings=(shardings, frozen, rows, everywhere),
      out_shardings=(shardings, everywhere),
      donate_argnums=0,
    )
  actor = shardings.actor.params

  def init(key: jax.Array) -> PolicyState:
    critic = None
    if made.critic_params is not None:
      critic = made.init_critic(
        jax.random.fold_in(key, 2), shardings.critic.params
      )
    params = made.init_policy(key, actor)
    return jax.jit(start, out_shardings=shardings)(params, critic)

  return PolicyStage(
    sample=jax.jit(
      laid_out("sample"),
      in_shardings=(actor, frozen, rows, everywhere),
      out_shardings=rows,
    ),
    learn=learning,
    compare=jax.jit(
      laid_out("compare"),
      in_shardings=(actor, frozen, rows),
      out_shardings=rows,
    ),
    merge=jax.jit(
      made.policy_of, in_shardings=(actor, frozen), out_shardings=frozen
    ),
    state=meshes.with_shardings(state, shardings),
    frozen=meshes.with_shardings(made.frozen_params, frozen),
    prompts=meshes.batch_shapes(shapes[0], mesh),
    batch=meshes.batch_shapes(shapes[1], mesh),
    init=init,
    init_frozen=lambda key: made.init_frozen(key, frozen),
    network=made.network,
    traces=traces,
    epochs=learner.policy.epochs,
  )


def _state_shardings(
  made: networks.Trainable,
  state: PolicyState,
  optimizers: ppo.Optimizers,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
) -> PolicyState:
  """The state with a sharding for each array."""
  everywhere = meshes.replicated(mesh)
  shardings_of = lambda optimizer, axes, params: train_state.like_params(
    optimizer,
    params,
    meshes.parameter_shardings(axes, params, mesh, rules),
    everywhere,
  )
  critic: Any = ()
  if made.critic_params is not None:
    critic = shardings_of(
      optimizers.critic, made.critic_axes, made.critic_params
    )
  shardings = jax.tree.map(lambda _: everywhere, state._replace(critic=()))
  return shardings._replace(
    actor=shardings_of(optimizers.actor, made.axes, made.params), critic=critic
  )
