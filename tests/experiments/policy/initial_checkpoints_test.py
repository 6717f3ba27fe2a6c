"""Critics that begin as reward models, and folders that are another decoder."""

import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import transformers
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.algorithms.policy_config import CriticConfig
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.policy import initial_checkpoints, networks
from jaxalign.models import heads, lora
from jaxalign.models.hf import config_map
from jaxalign.runtime.distributed import mesh as meshes

P, N, V = 4, 3, 12


def network_of(**changes):
  return config_map.scratch_config(
    "llama",
    **dict(
      vocab_size=V,
      num_layers=2,
      num_heads=2,
      num_kv_heads=2,
      embed_dim=8,
      mlp_dim=8,
      max_positions=P + N,
      tie_embeddings=True,
      pad_id=0,
    )
    | changes,
  )


def words(number=V, *, swapped=False):
  """A tokenizer of as many words, of which two may have changed places."""
  names = ["<pad>", *(f"w{i}" for i in range(1, number))]
  if swapped:
    names[3:5] = names[4], names[3]
  model = tokenizers.models.WordLevel(
    {name: i for i, name in enumerate(names)}, unk_token="<pad>"
  )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(model), pad_token="<pad>"
  )
  return Tokenizer(fast, 0, None, None)


@functools.cache
def folder_of(*, seed=0, swapped=False, **changes) -> str:
  """A folder with parameters of no meaning, away from zero."""
  network = network_of(**changes)
  rng = np.random.default_rng(seed)
  params = jax.tree.map(
    lambda x: rng.normal(0.1, 0.5, x.shape).astype(np.float32),
    backbone.abstract_params(heads.model_of(network)),
  )
  folder = tempfile.mkdtemp()
  models.save_pretrained(folder, params, network)
  words(network.vocab_size, swapped=swapped).save(folder)
  return folder


ATOMS = CriticConfig("separate", None, None, None, 1.0, 0.95, 7, -1.0, 1.0)


def made_with(folder, critic=None, reference=None, lora=None, **changes):
  """The networks of a policy whose critic starts from `folder`."""
  critic = critic or CriticConfig("separate", None, None, 0.2, 1.0, 0.95)
  return networks.make_networks(
    backbone.BackboneConfig(
      init_from=folder_of(**changes),
      architecture=None,
      dropout=0.0,
      dtype="float32",
      remat="none",
      unroll=1,
      lora=lora,
    ),
    dataclasses.replace(critic, init_from=folder),
    network_of(**changes),
    words(),
    temperature=1.0,
    max_new_tokens=N,
    entropy=False,
    reference=reference,
  )


def critic_of(made):
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 2, 2))
  shardings = meshes.parameter_shardings(
    made.critic_axes, made.critic_params, mesh
  )
  return made.init_critic(jax.random.key(0), shardings), shardings


class StartingPointsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(tie_embeddings=True),
    dict(tie_embeddings=False),
  )
  def test_its_values_are_the_rewards_of_the_text_so_far(self, **changes):
    folder = folder_of(num_outputs=1, max_positions=99, **changes)
    made = made_with(folder, **changes)
    critic, shardings = critic_of(made)
    self.assertEqual(jax.tree.map(lambda x: x.sharding, critic), shardings)
    self.assertEqual(
      jax.tree.map(lambda x: (x.shape, x.dtype), critic),
      jax.tree.map(lambda x: (x.shape, x.dtype), made.critic_params),
    )
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, V, (2, P + N)).astype(np.int32)
    mask = np.arange(P + N) >= np.array([0, 2])[:, None]
    values = made.networks.critic(
      critic, {"tokens": tokens[:, None], "mask": mask[:, None]}
    )
    apply, params, _ = models.load_reward_model(folder)
    for t in range(N):
      until = slice(P + t)  # the column before a token predicts it
      np.testing.assert_allclose(
        values[:, 0, t],
        apply(params, tokens[:, until], mask[:, until])[:, 0],
        rtol=1e-5,
        atol=1e-6,
      )

  def test_a_language_models_folder_starts_at_zero(self):
    made = made_with(folder_of())
    critic, _ = critic_of(made)
    self.assertEqual(float(jnp.abs(critic["value"]["kernel"]).max()), 0.0)

  def test_a_law_starts_as_an_equal_chance_of_all_atoms(self):
    made = made_with(folder_of(), ATOMS)
    critic, _ = critic_of(made)
    np.testing.assert_array_equal(critic["value"]["kernel"], np.zeros((8, 7)))
    tokens = np.ones((2, 1, P + N), np.int32)
    batch = {"tokens": tokens, "mask": tokens > 0}
    self.assertEqual(made.networks.critic(critic, batch).shape, (2, 1, N, 7))

  def test_a_reward_model_predicts_no_law(self):
    with self.assertRaisesRegex(
      ValueError, "critic.num_atoms must be None where .* is a reward model"
    ):
      made_with(folder_of(num_outputs=1), ATOMS)

  @parameterized.parameters(
    (dict(num_outputs=2), "gives 2 rewards; a critic, which predicts one"),
    (dict(num_outputs=1, num_layers=1), "has num_layers 1, the policy 2"),
    (dict(num_layers=1), "has num_layers 1, the policy 2; both must be"),
    (dict(num_outputs=1, rope_theta=5e5), "has rope_theta 500000.0, the"),
    (dict(num_outputs=1, mlp_dim=12), "critic.init_from: .* has mlp_dim 12"),
  )
  def test_refuses_before_anything_is_read(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      made_with(folder_of(**changes))

  def test_the_reference_is_another_policy_and_the_start_stays(self):
    other = folder_of(seed=1)
    made = made_with(None, reference=other)
    mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
    shardings = meshes.parameter_shardings(
      made.frozen_axes, made.frozen_params, mesh
    )
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    read = lambda folder: models.load_causal_lm(folder)[1]
    same(made.init_frozen(jax.random.key(0), shardings), read(other))
    same(made.init_policy(jax.random.key(0), shardings), read(folder_of()))

  @parameterized.parameters(
    (dict(num_outputs=1), None, "reference: .* holds a reward model, not"),
    (dict(embed_dim=4, mlp_dim=4), None, "reference: .* has embed_dim 4"),
    ({}, lora.LoraConfig(2, 4.0, ("query",)), "None with model.lora"),
  )
  def test_refuses_a_reference(self, changes, adapters, message):
    with self.assertRaisesRegex(ValueError, message):
      made_with(None, reference=folder_of(**changes), lora=adapters)

  @parameterized.parameters(
    (dict(swapped=True), "has 'w4' as token 3, the policy's 'w3'; .* 2 of 12"),
    (dict(vocab_size=11), "has None as token 11, the policy's 'w11'; .* 1 of"),
  )
  def test_another_vocabulary_is_refused_by_its_first_token(
    self, changes, message
  ):
    for outputs in (None, 1):
      folder = folder_of(num_outputs=outputs, **changes)
      with self.assertRaisesRegex(ValueError, f"critic.init_from: .*{message}"):
        made_with(folder)
    with self.assertRaisesRegex(ValueError, f"reference: .*{message}"):
      made_with(None, reference=folder_of(**changes))

  def test_more_tokens_are_named_by_the_tensor_that_has_room_for_them(self):
    made = made_with(folder_of(num_outputs=1, vocab_size=14))
    with self.assertRaisesRegex(
      ValueError, r"embed_tokens.weight must have shape \(12, 8\), got \(14, 8"
    ):
      critic_of(made)

  def test_every_field_is_compared_or_free(self):
    names = {f.name for f in dataclasses.fields(models.DecoderConfig)}
    self.assertLessEqual(initial_checkpoints.FREE, names)


if __name__ == "__main__":
  absltest.main()
