"""LoRA: low-rank adapters as a transform of parameters.

The network never knows: it is given base + difference. The base stays as it
is, gradients and moments exist for the adapters alone, and several adapters
may share one base.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import param_map

PROJECTIONS = ("query", "key", "value", "out", "gate", "up", "down")
SCORE = "score"

Adapters = Mapping[str, Any]  # module -> {"a": [L, in, r], "b": [L, r, out]}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """LoRA settings: adapted projections, rank and scale.

  Attributes:
    rank: r, rank of each difference.
    alpha: the difference is alpha / r times the product of its factors.
    targets: projections to adapt, of "query", "key", "value", "out", "gate",
      "up" and "down". Those that a checkpoint stores as one tensor share its
      first factor, so naming one of them adapts them all.

  Raises:
    ValueError: a field is out of range or names no projection.
  """

  rank: int = 8
  alpha: float = 32.0
  targets: tuple[str, ...] = ("query", "value")

  def __post_init__(self) -> None:
    if isinstance(self.rank, bool) or self.rank < 1:
      raise ValueError(f"rank must be >= 1, got {self.rank}")
    if not self.alpha > 0:
      raise ValueError(f"alpha must be > 0, got {self.alpha}")
    unknown = [name for name in self.targets if name not in PROJECTIONS]
    if unknown or not self.targets:
      raise ValueError(
        f"targets must be among {', '.join(PROJECTIONS)}, got {self.targets}"
      )


def adapted_modules(
  config: DecoderConfig, targets: tuple[str, ...]
) -> dict[str, list[param_map.Part]]:
  """Projections to adapt, as the checkpoint family groups them.

  Args:
    config: of the backbone.
    targets: projections, see `LoraConfig`.

  Returns:
    Module name in a layer, such as "self_attn.q_proj" -> the kernels in its
    tensor, in their order there.

  Raises:
    ValueError: the backbone has no such projection.
  """
  parts = param_map.parts(config)
  found: dict[str, list[param_map.Part]] = {}
  missing = set(targets)
  for part in parts.values():
    names = [path.split("/")[-2] for path in part.row.ours]
    kernels = all(path.endswith("/kernel") for path in part.row.ours)
    if kernels and part.layered and set(names) & set(targets):
      module = part.row.theirs.split("{layer}.")[1].removesuffix(".weight")
      found[module] = [parts[path] for path in part.row.ours]
      missing -= set(names)
  if missing:
    raise ValueError(
      f"targets must be projections of a {config.family}, which has no "
      f"{', '.join(sorted(missing))}"
    )
  return found


def init_adapters(
  key: jax.Array, config: DecoderConfig, lora: LoraConfig
) -> Adapters:
  """Adapters under which the model is the base: the second factors are 0.

  Args:
    key: typed key of the first factors.
    config: of the backbone; with `num_outputs` set the reward head is trained
      as a whole, by a difference of its own.
    lora: what is adapted.

  Returns:
    Module -> `{"a": [L, in, r], "b": [L, r, out]}`, and "score" ->
    `{"kernel": [D, num_outputs]}` for a reward model.
  """
  dtype = jnp.dtype(config.param_dtype)
  modules = adapted_modules(config, lora.targets)
  keys = jax.random.split(key, len(modules))
  adapters: dict[str, Any] = {}
  for name, k in zip(sorted(modules), keys, strict=True):
    part = modules[name][0]
    layers, width, _ = part.shape
    # As PEFT draws it: uniform with the variance 1 / (3 in).
    draw = jax.random.uniform(
      k, (layers, width, lora.rank), dtype, minval=-1.0, maxval=1.0
    )
    adapters[name] = {
      "a": draw * width**-0.5,
      "b": jnp.zeros((layers, lora.rank, part.total), dtype),
    }
  if config.num_outputs is not None:
    shape = (config.embed_dim, config.num_outputs)
    adapters[SCORE] = {"kernel": jnp.zeros(shape, dtype)}
  return adapters


def adapter_axes(config: DecoderConfig, lora: LoraConfig) -> Any:
  """Logical axes of the adapters, as `Model.axes` has those of a model.

  Args:
    config: of the backbone.
    lora: what is adapted.

  Returns:
    Tree of adapters with a tuple of logical axis names in place of each array;
    the rank lies on no axis.
  """
  of_model = param_map.flat_axes(heads.model_of(config).axes)
  axes: dict[str, Any] = {}
  for name, parts in adapted_modules(config, lora.targets).items():
    layers, inward, outward = of_model[parts[0].row.ours[0]]
    fused = outward if len(parts) == 1 else None
    axes[name] = {"a": (layers, inward, None), "b": (layers, None, fused)}
  if config.num_outputs is not None:
    axes[SCORE] = {"kernel": of_model["score/kernel"]}
  return axes


def difference(
  adapters: Adapters, config: DecoderConfig, lora: LoraConfig
) -> dict[str, jax.Array]:
  """What the adapters add to each parameter they touch.

    W' = W + alpha / r · A B

  Args:
    adapters: as `init_adapters` makes them.
    config: of the backbone.
    lora: what is adapted.

  Returns:
    Path of a parameter -> array of its shape, such as [L, in, out].

  References:
    Hu et al., "LoRA: low-rank adaptation of large language models", 2021,
    equation 3.
  """
  added: dict[str, jax.Array] = {}
  for name, parts in adapted_modules(config, lora.targets).items():
    a, b = adapters[name]["a"], adapters[name]["b"]
    product = jnp.einsum(
      "lir,lro->lio", a, b, precision=jax.lax.Precision.HIGHEST
    )
    product = product * (lora.alpha / lora.rank)
    at = 0
    for path, part in zip(parts[0].row.ours, parts, strict=True):
      added[path] = product[..., at : at + part.shape[-1]]
      at += part.shape[-1]
  if SCORE in adapters:
    added["score/kernel"] = adapters[SCORE]["kernel"]
  return added


def merge(
  params: heads.Params,
  adapters: Adapters,
  config: DecoderConfig,
  lora: LoraConfig,
) -> heads.Params:
  """Parameters with the adapters added, for scoring and saving.

  Args:
    params: of the backbone; unchanged, and without gradient.
    adapters: as `init_adapters` makes them.
    config: of the backbone.
    lora: what is adapted.

  Returns:
    A tree like `params`.
  """
  return _shifted(params, difference(adapters, config, lora), 1)


def adapted(
  apply: Callable[..., Any],
  base: heads.Params,
  config: DecoderConfig,
  lora: LoraConfig,
) -> Callable[..., Any]:
  """`apply` as a function of the adapters instead of the parameters.

  Inside `jax.jit` take `base` as an argument of the jitted function, or the
  program would hold it as a constant. For a mixture, stack the adapters of K
  models on a leading axis and `jax.vmap` over it.

  Args:
    apply: of a model, first argument the parameters.
    base: parameters of the backbone, frozen.
    config: of the backbone.
    lora: what is adapted.

  Returns:
    `(adapters, *args, **kwargs)`, otherwise as `apply`.
  """
  return lambda adapters, *args, **kwargs: apply(
    merge(base, adapters, config, lora), *args, **kwargs
  )


def _shifted(
  params: heads.Params, added: Mapping[str, jax.Array], sign: int
) -> heads.Params:
  leaves = {
    path: jax.lax.stop_gradient(leaf)
    for path, leaf in param_map.flat(params).items()
  }
  for path, array in added.items():
    leaves[path] = leaves[path] + sign * array
  return jax.tree.unflatten(jax.tree.structure(params), list(leaves.values()))
