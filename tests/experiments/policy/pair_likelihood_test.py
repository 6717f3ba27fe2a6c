"""Likelihood of pairs under real networks, and the file of the reference's."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.experiments.policy import pair_likelihood
from jaxalign.models import heads
from tests.models import samples

B, T = 3, 7


class ReaderTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.network = samples.LLAMA
    self.model = heads.causal_lm(self.network)
    rng = np.random.default_rng(0)
    place, length = np.arange(T), rng.integers(4, T + 1, size=(B, 2, 1))
    tokens = rng.integers(3, self.network.vocab_size, (B, 2, T))
    self.batch = {
      "tokens": jnp.array(tokens, jnp.int32),
      "mask": jnp.array(place < length),
      "response": jnp.array((place >= 2) & (place < length)),
    }
    self.params = self.draw(0)

  def draw(self, seed):
    shape = jnp.zeros((1, 1), jnp.int32)
    return self.model.init(jax.random.key(seed), shape, shape == 0)

  def by_hand(self, params):
    tokens = self.batch["tokens"].reshape(-1, T)
    out = self.model.apply(params, tokens, self.batch["mask"].reshape(-1, T))
    each = jnp.take_along_axis(
      jax.nn.log_softmax(out.logits[:, :-1]), tokens[:, 1:, None], 2
    )[..., 0]
    counted = self.batch["response"].reshape(-1, T)[:, 1:]
    return np.where(counted, each, 0).sum(-1).reshape(B, 2)

  def test_log_probabilities_of_responses_alone(self):
    read = pair_likelihood.reader(self.network, self.model, dropout=False)
    found = read(self.params, self.batch)
    np.testing.assert_allclose(
      found.log_probs[..., 0], self.by_hand(self.params), rtol=1e-5
    )
    self.assertEqual(found.features.shape, (B, 2, 0))

  def test_copies_are_read_one_by_one(self):
    read = pair_likelihood.reader(
      self.network, self.model, dropout=False, copies=2
    )
    both = self.params, self.draw(1)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
    np.testing.assert_allclose(
      read(stacked, self.batch).log_probs,
      np.stack([self.by_hand(params) for params in both], -1),
      rtol=1e-5,
    )

  def test_features_are_the_gradient_in_the_scale_of_the_final_norm(self):
    read = pair_likelihood.reader(
      self.network, self.model, dropout=False, features=True
    )
    found = read(self.params, self.batch)
    self.assertEqual(found.features.shape, (B, 2, self.network.embed_dim))

    def log_probs(scale):
      norm = {**self.params["final_norm"], "scale": scale}
      params = {**self.params, "final_norm": norm}
      return read(params, self.batch).log_probs[..., 0]

    scale = self.params["final_norm"]["scale"]
    np.testing.assert_array_equal(scale, np.ones_like(scale))
    np.testing.assert_allclose(
      found.features, jax.jacobian(log_probs)(scale), atol=2e-5
    )
    # No gradient flows through them.
    through = jax.grad(lambda p: jnp.sum(read(p, self.batch).features))
    for leaf in jax.tree.leaves(through(self.params)):
      np.testing.assert_array_equal(leaf, 0)


class CachedTest(absltest.TestCase):
  def test_made_once_and_read_after(self):
    folder = epath.Path(tempfile.mkdtemp()) / "kept"
    made = []

    def make():
      made.append(np.arange(6.0, dtype=np.float32).reshape(3, 2))
      return made[-1]

    for _ in range(2):
      found = pair_likelihood.cached(folder, "abc", 3, make)
      np.testing.assert_array_equal(found, made[0])
    self.assertLen(made, 1)
    pair_likelihood.cached(folder, "other", 3, make)
    self.assertLen(made, 2)

  def test_a_damaged_file_is_named(self):
    folder = epath.Path(tempfile.mkdtemp())
    make = lambda: np.zeros((3, 2), np.float32)
    pair_likelihood.cached(folder, "abc", 3, make)
    with self.assertRaisesRegex(ValueError, r"abc.npy is damaged.*\(3, 2\)"):
      pair_likelihood.cached(folder, "abc", 4, make)
    whole = (folder / "abc.npy").read_bytes()
    (folder / "abc.npy").write_bytes(whole[:-3])
    with self.assertRaisesRegex(ValueError, "abc.npy is damaged, delete it"):
      pair_likelihood.cached(folder, "abc", 3, make)


if __name__ == "__main__":
  absltest.main()
