"""One reward problem, trained under any layout; also run by worker processes.

As a program it is one process of several: it prints nothing and leaves the
gradient and the parameters of its run in a file that the test compares.
"""

import sys

import jax
import numpy as np

from jaxalign.algorithms import bradley_terry, train_state
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import update as contract
from jaxalign.models import activations, heads
from jaxalign.models.hf import config_map
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost

PAIRS, LENGTH, VOCAB, STEPS = 16, 8, 32, 20
LAYOUTS = {
  # name: (data, fsdp, tensor), accumulation, parallel
  "one device": ((1, 1, 1), 1, "jit"),
  "accumulation 4": ((1, 1, 1), 4, "jit"),
  "data x fsdp": ((2, 4, 1), 1, "jit"),
  "data x tensor": ((4, 1, 2), 1, "jit"),
  "fsdp x tensor, accumulation 2": ((1, 4, 2), 2, "jit"),
  "pmap": ((8, 1, 1), 1, "pmap"),
  "pmap, accumulation 2": ((8, 1, 1), 2, "pmap"),
}


def network():
  """A tiny Llama in float64, with dropout."""
  return config_map.scratch_config(
    "llama",
    vocab_size=VOCAB,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    embed_dim=16,
    mlp_dim=32,
    max_positions=LENGTH,
    tie_embeddings=True,
    num_outputs=1,
    pad_id=0,
    dropout=0.1,
    dtype="float64",
    param_dtype="float64",
  )


def rows(step: int) -> dict[str, np.ndarray]:
  """The batch of a step; three rows do not count."""
  rng = np.random.default_rng(step)
  lengths = rng.integers(3, LENGTH + 1, size=(PAIRS, 2))
  words = rng.integers(1, VOCAB // 2, size=(PAIRS, 2, LENGTH))
  words[:, 0] += VOCAB // 2 - 1  # what chosen responses are made of
  mask = np.arange(LENGTH) < lengths[..., None]
  return {
    "tokens": np.where(mask, words, 0).astype(np.int32),
    "mask": mask,
    "where": ~np.isin(np.arange(PAIRS), (1, 6, 7)),
    "chosen_prob": np.ones(PAIRS, np.float32),
    "margin": np.zeros(PAIRS, np.float32),
    "row": np.arange(PAIRS, dtype=np.int32),
  }


def train(layout: str, scale: float = 1.0) -> dict[str, np.ndarray]:
  """Gradient of step 1 and parameters before and after STEPS steps.

  Args:
    layout: key of LAYOUTS.
    scale: factor on the loss, to prove that the comparison sees one.

  Returns:
    Flat float64 arrays by name: `gradient/...`, `start/...` and `end/...`.
  """
  sizes, accumulation, parallel = LAYOUTS[layout]
  mesh = meshes.make_mesh(meshes.MeshConfig(*sizes))
  model = heads.reward_model(network())
  plain = bradley_terry.bradley_terry(
    model.apply,
    bradley_terry.PairLossConfig(
      labels="hard", flip_rate=0.1, margin=None, centering=0.01
    ),
    dropout=True,
  )
  scaled = lambda *args: (lambda loss, report: (scale * loss, report))(
    *plain.loss(*args)
  )
  objective = plain._replace(loss=scaled)
  optimizer = optimizers.make_optimizer(
    optimizers.OptimizerConfig(
      learning_rate=1e-2,
      schedule="cosine",
      warmup_steps=2,
      b1=0.9,
      b2=0.99,
      eps=1e-8,
      weight_decay=0.1,
      clip_norm=1.0,
    ),
    num_steps=STEPS,
    axes=model.axes,
  )
  axis_name = "data" if parallel == "pmap" else None
  options = {"accumulation": accumulation, "axis_name": axis_name}
  update = contract.make_update(objective, optimizer, **options)
  raw_gradient = contract.make_gradient(objective, **options)

  def gradient(params, batch, key):
    keys = contract.row_keys(jax.random.fold_in(key, 0), batch["row"])
    return raw_gradient(params, {**batch, "key": keys}, ()).gradient

  token = np.zeros((1, 1), np.int32)
  params = model.init(jax.random.key(0), token, token == 0)
  shardings = train_state.like_params(
    optimizer,
    params,
    meshes.parameter_shardings(model.axes, params, mesh),
    meshes.replicated(mesh),
  )
  start = jax.jit(
    lambda params: train_state.init_state(params, optimizer),
    out_shardings=shardings,
  )
  batch_of = lambda step: multihost.global_batch(
    _local(rows(step)), meshes.batch_sharding(mesh)
  )
  state = start(params)
  if parallel == "pmap":
    step = meshes.data_parallel(update, mesh)
    # The wrapper donates its first argument, hence a second state.
    gradient_of = meshes.data_parallel(
      lambda params, batch, key: (gradient(params, batch, key), {}), mesh
    )
    grads = gradient_of(start(params).params, batch_of(0), jax.random.key(1))[0]
  else:
    step = meshes.sharded(update, shardings, mesh)
    gradient_of = jax.jit(
      activations.laid_out(gradient, mesh, meshes.logical_table()),
      out_shardings=shardings.params,
    )
    grads = gradient_of(state.params, batch_of(0), jax.random.key(1))
  result = _flat("gradient", grads) | _flat("start", state.params)
  for number in range(STEPS):
    state, scalars = step(state, batch_of(number), jax.random.key(1))
  result["loss"] = np.array(scalars["train/loss"])
  return result | _flat("end", state.params)


def _local(batch):
  """This process's block of the rows."""
  share = PAIRS // jax.process_count()
  first = share * jax.process_index()
  return {k: v[first : first + share] for k, v in batch.items()}


def _flat(prefix, tree):
  """Whole arrays on this host by name."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(multihost.fetch(tree))
  return {
    f"{prefix}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves
  }


def relative(result, expected, prefix: str, origin: str | None = None) -> float:
  """‖difference‖ over ‖expected‖, or over the distance from `origin`."""
  names = [name for name in expected if name.startswith(prefix)]
  gap = sum(np.sum((result[n] - expected[n]) ** 2) for n in names)
  base = lambda n: 0 if origin is None else expected[n.replace(prefix, origin)]
  size = sum(np.sum((expected[n] - base(n)) ** 2) for n in names)
  return float(np.sqrt(gap / size))


def main() -> None:
  """One of several processes: ADDRESS PROCESSES PROCESS FILE."""
  address, processes, process, path = sys.argv[1:]
  jax.config.update("jax_num_cpu_devices", 4)
  jax.config.update("jax_enable_x64", True)
  multihost.initialize(
    coordinator=address,
    num_processes=int(processes),
    process_id=int(process),
    timeout_s=120,
  )
  result = train("data x fsdp")
  if multihost.is_main():
    np.savez(path, **result)
  multihost.barrier("done")


if __name__ == "__main__":
  main()
