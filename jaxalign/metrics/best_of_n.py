"""Best-of-n estimates: expected true reward and KL of picking by a proxy."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import checks


def best_of_n_kl(n: jax.Array) -> jax.Array:
  """KL of the best of n samples to the policy that drew them, in nats.

    KL = log n − (n − 1) / n

  exact where no two samples tie, an upper bound otherwise.

  Args:
    n: samples per prompt, ≥ 1, int or float [...].

  Returns:
    float32 or wider, [...].

  References:
    Stiennon et al., "Learning to summarize from human feedback", 2020,
    appendix G.3.
    Beirami et al., "Theoretical guarantees on the best-of-n alignment policy",
    2024: the bound.
  """
  count = jnp.asarray(n)
  if not jnp.issubdtype(count.dtype, jnp.floating):
    count = count.astype(jnp.float32)
  return jnp.log(count) - (count - 1) / count


def best_of_n_values(
  proxy: jax.Array, values: jax.Array, *, sizes: Sequence[int]
) -> jax.Array:
  """Expected value of the sample that a proxy picks among n, per prompt.

    v_n = Σ_i C(i − 1, n − 1) / C(N, n) values_(i)

  with values sorted by the proxy, worst first: the mean over all subsets of n
  of the N samples, and so without the noise of drawing some.

  Args:
    proxy: what the samples are picked by, float [P, N].
    values: what they are worth, such as the proxy itself or an oracle, float
      [P, N] or [P, N, K].
    sizes: n, Python ints in [1, N], S of them.

  Returns:
    [P, S] or [P, S, K]. Of tied samples the later one is taken.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes do not fit or a size is out of range.

  References:
    Nakano et al., "WebGPT", 2021, appendix I: the estimator.
  """
  checks.rank(2, proxy=proxy)
  checks.floating(proxy=proxy, values=values)
  if jnp.shape(values)[:2] != jnp.shape(proxy):
    raise ValueError(
      f"values must begin with the shape of proxy {jnp.shape(proxy)}, got "
      f"{jnp.shape(values)}"
    )
  number = jnp.shape(proxy)[1]
  for n in sizes:
    if not 1 <= n <= number:
      raise ValueError(f"sizes must be in [1, {number}], got {n}")
  order = jnp.argsort(proxy, axis=1, stable=True)
  index = order.reshape(*order.shape, *(1,) * (jnp.ndim(values) - 2))
  ranked = jnp.take_along_axis(jnp.asarray(values), index, axis=1)
  weights = np.array(
    [
      [math.comb(i, n - 1) / math.comb(number, n) for i in range(number)]
      for n in sizes
    ]
  )
  return jnp.einsum(
    "sn,pn...->ps...", jnp.asarray(weights, ranked.dtype), ranked
  )
