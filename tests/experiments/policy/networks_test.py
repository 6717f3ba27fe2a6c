"""What a policy says of its responses, against plain logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import policy_config
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.policy import networks
from jaxalign.models import heads
from jaxalign.models.generation import sampling
from jaxalign.models.hf import config_map
from jaxalign.runtime.distributed import mesh as meshes

R, G, P, N, V = 2, 2, 5, 3, 11


class ResponseReaderTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.network = config_map.scratch_config(
      "llama",
      vocab_size=V,
      num_layers=1,
      num_heads=2,
      num_kv_heads=2,
      embed_dim=8,
      mlp_dim=8,
      max_positions=P + N + 2,
      tie_embeddings=True,
      value_head=True,
    )
    self.model = heads.causal_lm(self.network)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, V, (R, G, P + N))
    starts = np.array([0, 3])[:, None, None]
    mask = np.broadcast_to(np.arange(P + N) >= starts, (R, G, P + N))
    self.batch = {
      "tokens": jnp.array(tokens, jnp.int32),
      "mask": jnp.array(mask),
    }
    token = jnp.zeros((1, 1), jnp.int32)
    params = self.model.init(jax.random.key(0), token, token == 0)
    # A value head starts at zero, and tied embeddings near it.
    self.params = jax.tree.map(
      lambda x: x + jnp.array(rng.normal(size=x.shape), jnp.float32), params
    )

  def read(self, temperature, batch=None, truncation=None):
    reader = networks.response_reader(
      self.network,
      self.model,
      temperature=temperature,
      max_new_tokens=N,
      entropy=True,
      truncation=truncation,
    )
    return jax.jit(reader)(self.params, self.batch if batch is None else batch)

  def test_each_token_is_read_where_it_is_predicted(self):
    out = self.read(0.7)
    for r in range(R):
      for g in range(G):
        kept = np.asarray(self.batch["mask"])[r, g]
        ids = np.asarray(self.batch["tokens"])[r, g][kept][None]
        plain = self.model.apply(self.params, ids, np.ones_like(ids, bool))
        logits = np.asarray(plain.logits, np.float64)[0, -N - 1 : -1]
        for temperature, found in (
          (0.7, out.log_probs), (1.0, out.model_log_probs)
        ):  # fmt: skip
          scaled = logits / temperature
          logs = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
          np.testing.assert_allclose(
            found[r, g], logs[np.arange(N), ids[0, -N:]], rtol=1e-4, atol=1e-5
          )
          if temperature == 0.7:
            np.testing.assert_allclose(
              out.entropy[r, g], -(np.exp(logs) * logs).sum(-1), rtol=1e-4
            )
        np.testing.assert_allclose(
          out.values[r, g], plain.values[0, -N - 1 : -1], rtol=1e-4, atol=1e-5
        )

  def test_a_truncated_policy_is_what_is_drawn_from(self):
    cut = sampling.Truncation(top_k=4, top_p=None)
    whole, found = self.read(0.7), self.read(0.7, truncation=cut)
    np.testing.assert_array_equal(found.model_log_probs, whole.model_log_probs)
    np.testing.assert_array_equal(found.values, whole.values)
    self.assertTrue(np.all(found.log_probs >= whole.log_probs))
    logits = np.asarray(
      self.model.apply(
        self.params,
        *(x.reshape(-1, P + N) for x in self.batch.values()),
      ).logits,
      np.float64,
    )[:, -N - 1 : -1].reshape(R, G, N, V)
    targets = np.asarray(self.batch["tokens"])[..., -N:]
    for place in np.ndindex(R, G, N):
      scaled = np.exp(logits[place] / 0.7)
      kept = {*np.argsort(-scaled)[:4].tolist()}
      probs = np.array([scaled[v] for v in sorted(kept)])
      probs /= probs.sum()
      np.testing.assert_allclose(
        found.entropy[place], -(probs * np.log(probs)).sum(), rtol=1e-4
      )
      target = int(targets[place])
      mass = sum(scaled[v] for v in kept | {target})
      np.testing.assert_allclose(
        found.log_probs[place],
        np.log(scaled[target] / mass),
        rtol=1e-4,
        atol=1e-5,
      )

  def test_more_padding_on_the_left_changes_nothing(self):
    grown = {
      k: jnp.pad(v, ((0, 0), (0, 0), (2, 0))) for k, v in self.batch.items()
    }
    expected, found = self.read(1.0), self.read(1.0, grown)
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

  def test_dropout_is_refused(self):
    with self.assertRaisesRegex(ValueError, "model.dropout must be 0"):
      networks.make_networks(
        None,
        None,
        dataclasses.replace(self.network, dropout=0.1),
        None,
        temperature=1.0,
        max_new_tokens=N,
        entropy=False,
      )


class CriticFromScratchTest(absltest.TestCase):
  def test_its_trunk_is_that_of_a_network_drawn_as_a_whole(self):
    network = config_map.scratch_config(
      "llama",
      vocab_size=12,
      num_layers=2,
      num_heads=2,
      num_kv_heads=2,
      embed_dim=8,
      mlp_dim=8,
      max_positions=P + N,
      tie_embeddings=False,
    )
    critic = policy_config.CriticConfig(
      clip=None, num_atoms=5, low=-1.0, high=1.0
    )
    made = networks.make_networks(
      backbone.BackboneConfig(
        architecture=backbone.Architecture(
          num_layers=2, num_heads=2, embed_dim=8, mlp_dim=8
        )
      ),
      critic,
      network,
      None,
      temperature=1.0,
      max_new_tokens=N,
      entropy=False,
    )
    shardings = meshes.parameter_shardings(
      made.critic_axes,
      made.critic_params,
      meshes.make_mesh(meshes.MeshConfig(1, 2, 2)),
    )
    key = jax.random.key(1)
    found = made.init_critic(key, shardings)
    valued = dataclasses.replace(network, value_head=True, num_values=5)
    token = jnp.zeros((1, 1), jnp.int32)
    expected = heads.causal_lm(valued).init(key, token, token == 0)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    self.assertEqual(jax.tree.map(lambda x: x.sharding, found), shardings)
    self.assertGreater(jnp.abs(found["lm_head"]["kernel"]).max(), 0)


if __name__ == "__main__":
  absltest.main()
