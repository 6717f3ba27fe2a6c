r"""Transport, min-norm and import cost against their alternatives.

    python -m tests.benchmarks.losses transport_6 transport_16 transport_64
    python -m tests.benchmarks.losses min_norm imports

Contestants take turns in one process, so that a busy machine slows all of them
alike; read the ratios. Transport is compared at an error of at most 1e-3: the
others do as few iterations as bring the gradient of all rows so near to the
converged float64 one, and `ops.sinkhorn` runs as it is called, with a hundred
allowed.
Prints JSON: medians with quartiles, and the median of the ratios round by
round.
"""

import functools
import json
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import ops

ROWS, TOLERANCE = 4096, 1e-3
EPSILONS = (0.2, 0.05, 0.01)
OUR_ITERATIONS = 100
MOST_ITERATIONS = 10_000
LONGEST_SECONDS = 8.0  # a run longer than this takes part once


def interleaved(contestants, rounds):
  """Seconds of each, in turn; every one has run before."""
  seconds = {name: [] for name in contestants}
  for turn in range(rounds):
    for name, run in contestants.items():
      if turn and seconds[name][0] > LONGEST_SECONDS:
        continue
      start = time.perf_counter()
      run()
      seconds[name].append(time.perf_counter() - start)
  return seconds


def summary(seconds, baseline):
  """Milliseconds with quartiles, and ratios to `baseline` round by round."""
  out = {}
  for name, values in seconds.items():
    low, middle, high = np.percentile(values, [25, 50, 75])
    ratio = np.array(values) / np.array(seconds[baseline][: len(values)])
    out[name] = dict(
      runs=len(values),
      milliseconds=round(1e3 * middle, 4),
      quartiles=[round(1e3 * low, 4), round(1e3 * high, 4)],
      ratio=round(float(np.median(ratio)), 4),
      ratio_quartiles=[
        round(float(x), 4) for x in np.percentile(ratio, [25, 75])
      ],
    )
  return out


def value_and_grad(cost_of, cost):
  """The loss of softmax(logits) against targets and its gradient, jitted."""

  def total(logits, target, cost):
    return jnp.sum(cost_of(jax.nn.softmax(logits), target, cost))

  compiled = jax.jit(jax.value_and_grad(total))
  return lambda logits, target: compiled(logits, target, cost)


def ours(epsilon, num_iters):
  return lambda p, t, cost: (
    ops.sinkhorn(
      p, t, cost, epsilon=epsilon, num_iters=num_iters
    ).regularised_cost
  )


def ott(epsilon, num_iters, lse_mode, momentum):
  """A fixed number of iterations with Danskin's gradient: no unrolling."""
  from ott.geometry import geometry
  from ott.problems.linear import linear_problem
  from ott.solvers.linear import acceleration, sinkhorn

  solver = sinkhorn.Sinkhorn(
    lse_mode=lse_mode,
    threshold=-1.0,
    min_iterations=num_iters,
    max_iterations=num_iters,
    inner_iterations=num_iters,
    momentum=acceleration.Momentum(value=momentum),
    use_danskin=True,
  )

  def one(p, t, cost):
    geom = geometry.Geometry(cost, epsilon=epsilon)
    return solver(linear_problem.LinearProblem(geom, a=p, b=t)).reg_ot_cost

  return jax.vmap(one, in_axes=(0, 0, None))


def converged(logits, target, cost, epsilon):
  """The float64 gradient, with a certificate that the optimum was reached."""
  with jax.enable_x64(True):
    probs = jax.nn.softmax(jnp.asarray(logits, jnp.float64))
    out = jax.jit(
      lambda p: ops.sinkhorn(p, target, cost, epsilon=epsilon, num_iters=400)
    )(probs)
    # A plan of the dual's form with both marginals is the optimum.
    if not np.max(out.marginal_error) < 1e-11:
      raise ValueError(f"not converged: {np.max(out.marginal_error)}")
    probs, potential = np.asarray(probs), np.asarray(out.potential_a)
  mean = np.sum(probs * potential, axis=-1, keepdims=True)
  return probs * (potential - mean)


def error_of(run, sample, exact):
  grad = np.asarray(run(*sample)[1], np.float64)
  return float(np.linalg.norm(grad - exact) / np.linalg.norm(exact))


def plain_iterations(logits, target, cost, epsilon, momentum, exact):
  """How many Sinkhorn iterations bring the gradient within the tolerance."""
  z = logits - logits.max(-1, keepdims=True)
  probs = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
  kernel = np.exp(-cost / epsilon)
  u, v = np.ones_like(probs), np.ones_like(target)
  for n in range(1, MOST_ITERATIONS + 1):
    v = v ** (1 - momentum) * (target / (u @ kernel)) ** momentum
    u = u ** (1 - momentum) * (probs / (v @ kernel.T)) ** momentum
    if n % 5 == 0:
      potential = epsilon * np.log(u / probs)
      mean = np.sum(probs * potential, axis=-1, keepdims=True)
      error = np.linalg.norm(probs * (potential - mean) - exact)
      if error <= TOLERANCE * np.linalg.norm(exact):
        return n
  return None


def our_solver(epsilon, arrays, cost, exact):
  run = value_and_grad(ours(epsilon, OUR_ITERATIONS), cost)
  return OUR_ITERATIONS, run, error_of(run, arrays, exact)


def their_solver(epsilon, lse_mode, momentum, arrays, cost, exact):
  """As few iterations as theory needs, some more where rounding asks."""
  wide = [np.asarray(x, np.float64) for x in arrays]
  num_iters = plain_iterations(
    *wide, np.asarray(cost, np.float64), epsilon, momentum, exact
  )
  if num_iters is None:
    return f"more than {MOST_ITERATIONS}", None, None
  for _ in range(2):
    run = value_and_grad(ott(epsilon, num_iters, lse_mode, momentum), cost)
    error = error_of(run, arrays, exact)
    if error <= TOLERANCE:
      return num_iters, run, error
    num_iters = int(1.1 * num_iters) + 1
  return num_iters, None, error


def transport(atoms, rounds=5):
  out = {}
  rng = np.random.default_rng(atoms)
  logits = rng.normal(size=(ROWS, atoms))
  target = rng.dirichlet(np.ones(atoms), size=ROWS)
  position = np.linspace(0, 1, atoms)
  cost = np.abs(position[:, None] - position[None])
  arrays = [jnp.asarray(x, jnp.float32) for x in (logits, target)]
  narrow_cost = jnp.asarray(cost, jnp.float32)
  for epsilon in EPSILONS:
    exact = converged(logits, target, cost, epsilon)
    solvers = dict(ours=our_solver(epsilon, arrays, narrow_cost, exact))
    # Plain log mode needs three times the iterations of over-relaxed log mode.
    for lse_mode, momentum in ((True, 1.5), (False, 1.0), (False, 1.5)):
      name = f"ott {'log' if lse_mode else 'kernel'} momentum {momentum}"
      solvers[name] = their_solver(
        epsilon, lse_mode, momentum, arrays, narrow_cost, exact
      )
    rows, contestants = {}, {}
    for name, (num_iters, run, error) in solvers.items():
      rows[name] = dict(iterations=num_iters, gradient_error=error)
      if run is not None:
        contestants[name] = functools.partial(
          lambda run, *x: jax.block_until_ready(run(*x)), run, *arrays
        )
    times = summary(interleaved(contestants, rounds), "ours")
    out[f"epsilon {epsilon}"] = {
      name: {**row, **times.get(name, {})} for name, row in rows.items()
    }
    print(
      json.dumps({f"epsilon {epsilon}": out[f"epsilon {epsilon}"]}),
      file=sys.stderr,
      flush=True,
    )
  return out


def frank_wolfe(gram, num_steps):
  """Steps towards one vertex from the uniform weights."""

  def step(_, weights):
    vertex = jax.nn.one_hot(jnp.argmin(gram @ weights), gram.shape[0])
    a, b = weights @ gram @ weights, weights @ gram @ vertex
    c = vertex @ gram @ vertex
    share = jnp.clip((c - b) / jnp.maximum(a + c - 2 * b, 1e-30), 0, 1)
    return share * weights + (1 - share) * vertex

  size = gram.shape[0]
  return jax.lax.fori_loop(0, num_steps, step, jnp.full(size, 1 / size))


def min_norm(rounds=50):
  out = {}
  for size in (5, 64):
    rng = np.random.default_rng(size)
    side = np.where(rng.random((size, 1)) < 0.5, 1, -1)
    vectors = 0.3 * rng.normal(size=(size, 512)) + side * rng.normal(size=512)
    gram = jnp.asarray(vectors @ vectors.T, jnp.float32)
    solvers = dict(
      ours=ops.min_norm_weights,
      frank_wolfe_250=lambda g: frank_wolfe(g, 250),
      frank_wolfe_5000=lambda g: frank_wolfe(g, 5000),
    )
    gaps, contestants = {}, {}
    for name, solver in solvers.items():
      run = jax.jit(solver)
      weights = np.asarray(run(gram), np.float64)
      products = np.asarray(gram, np.float64) @ weights
      gap = (weights @ products - products.min()) / np.min(np.diag(gram))
      gaps[name] = dict(relative_duality_gap=float(gap))
      contestants[name] = functools.partial(
        lambda run, gram: jax.block_until_ready(run(gram)), run, gram
      )
    times = summary(interleaved(contestants, rounds), "ours")
    out[f"{size} vectors"] = {n: {**gaps[n], **times[n]} for n in gaps}
  return out


def imports(rounds=7):
  run = lambda code: functools.partial(
    subprocess.run, [sys.executable, "-c", code], check=True
  )
  run("from jaxalign import losses")()  # the files are cached from here on
  contestants = dict(
    jax=run("import jax"),
    jax_numpy=run("import jax.numpy"),
    jaxalign_losses=run("from jaxalign import losses"),
  )
  return summary(interleaved(contestants, rounds), "jax")


def main(names):
  warnings.simplefilter("ignore")  # ott's import warns about jaxopt's end
  parts = dict(min_norm=min_norm, imports=imports)
  for atoms in (6, 16, 64):
    parts[f"transport_{atoms}"] = functools.partial(transport, atoms)
  out = dict(jax=jax.__version__, device=jax.devices()[0].device_kind)
  out.update({name: parts[name]() for name in names or parts})
  print(json.dumps(out, indent=2))


if __name__ == "__main__":
  main(sys.argv[1:])
