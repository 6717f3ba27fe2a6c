"""No array above 1 % of a model is whole on every device, in any family."""

import dataclasses

import jax
from absl.testing import absltest, parameterized

from jaxalign.experiments import sft, train_policy, train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.models.hf import config_map
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.profiling import memory
from tests import shipped

FIELDS = (
  "family",
  "num_layers",
  "num_heads",
  "num_kv_heads",
  "embed_dim",
  "mlp_dim",
  "vocab_size",
)
PUBLISHED = {
  "pythia-1.4b": ("gpt_neox", 24, 16, 16, 2048, 8192, 50304),
  "pythia-6.9b": ("gpt_neox", 32, 32, 32, 4096, 16384, 50432),
  "gpt2-xl": ("gpt2", 48, 25, 25, 1600, 6400, 50257),
  "opt-6.7b": ("opt", 32, 32, 32, 4096, 16384, 50272),
  "llama-2-7b": ("llama", 32, 32, 32, 4096, 11008, 32000),
  "llama-3-8b": ("llama", 32, 32, 8, 4096, 14336, 128256),
  "mistral-7b": ("mistral", 32, 32, 8, 4096, 14336, 32768),
  "qwen2-7b": ("qwen2", 28, 28, 4, 3584, 18944, 152064),
  "qwen3-8b": ("qwen3", 36, 32, 8, 4096, 12288, 151936),
  "gemma-2-9b": ("gemma2", 42, 16, 8, 3584, 14336, 256000),
  "gemma-3-12b": ("gemma3_text", 48, 16, 8, 3840, 15360, 262208),
  "phi-3-mini": ("phi3", 32, 32, 32, 3072, 8192, 32064),
  "smollm3-3b": ("smollm3", 36, 16, 4, 2048, 11008, 128256),
  "olmo-2-7b": ("olmo2", 32, 32, 32, 4096, 11008, 100352),
}
TENSOR = [name for name in PUBLISHED if name != "gpt2-xl"]  # 25 heads
CASES = [(name, (1, 8, 1)) for name in PUBLISHED] + [
  (name, (2, 2, 2)) for name in TENSOR
]


def config_of(stage, file: str, name: str, sizes: tuple[int, ...]):
  """A stage's config with the shape of a published model."""
  cfg = shipped.config(file, "smoke")
  with cfg.ignore_type():
    cfg.model.architecture = dict(
      zip(FIELDS, PUBLISHED[name], strict=True), tie_embeddings=False
    )
    cfg.mesh.update(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    cfg.train.batch_size = 8
  return configuration.to_dataclass(stage.Config, cfg)


class PaperScaleTest(parameterized.TestCase):
  @parameterized.parameters(*CASES)
  def test_reward_model(self, name, sizes):
    config = config_of(train_reward, "rm_bt_crowd", name, sizes)
    stage = train_reward.build(config, meshes.make_mesh(config.mesh))
    size = memory.model_bytes(stage.state.params)
    self.assertGreater(size, 4e9)
    self.assertEmpty(memory.replicated_giants(stage.state, model_bytes=size))
    held = memory.bytes_per_device(stage.state.params)
    self.assertLess(held / size, 1.01 / (sizes[1] * sizes[2]))

  @parameterized.parameters(*TENSOR)
  def test_policy(self, name):
    config = config_of(sft, "sft_crowd", name, (2, 2, 2))
    stage = sft.build(config, meshes.make_mesh(config.mesh))
    size = memory.model_bytes(stage.state.params)
    self.assertEmpty(memory.replicated_giants(stage.state, model_bytes=size))

  @parameterized.parameters(
    ("policy_secrets_llama2_7b", "shape"),
    ("policy_dprm", "opt_6_7b,shape"),
    ("policy_dprm", "llama_7b,shape"),
  )
  def test_ppo_as_the_papers_ran_it(self, name, variant):
    cfg = shipped.config(name, variant)
    cfg.mesh = dict(data=1, fsdp=8)
    config = configuration.to_dataclass(train_policy.Config, cfg)
    stage = train_policy.build(config, meshes.make_mesh(config.mesh))
    actor, critic = (part.params for part in stage.state[1:3])
    size = memory.model_bytes(actor)
    self.assertBetween(size, 4 * 6.6e9, 4 * 6.8e9)  # float32 in training
    whole = {"actor": actor, "critic": critic, "frozen": stage.frozen}
    self.assertEmpty(memory.replicated_giants(whole, model_bytes=size))

  def test_a_reward_model_per_group(self):
    cfg = shipped.config("rm_mixture_tulu2_7b", "shape_separate")
    cfg.mesh.fsdp = 8
    config = configuration.to_dataclass(train_reward.Config, cfg)
    stage = train_reward.build(config, meshes.make_mesh(config.mesh))
    size = memory.model_bytes(stage.params)
    one = memory.model_bytes(stage.state.frozen)
    self.assertAlmostEqual(size / one, 2.0, delta=0.01)  # of one base
    self.assertEmpty(memory.replicated_giants(stage.state, model_bytes=one))

  def test_every_family_is_here(self):
    self.assertEqual(
      {row[0] for row in PUBLISHED.values()}, {*config_map.FAMILIES}
    )

  def test_a_giant_is_seen(self):
    config = config_of(train_reward, "rm_bt_crowd", "llama-3-8b", (1, 8, 1))
    mesh = dataclasses.replace(config.mesh, rules=(("embed", None),))
    config = dataclasses.replace(config, mesh=mesh)
    stage = train_reward.build(config, meshes.make_mesh(mesh))
    found = memory.replicated_giants(
      stage.state, model_bytes=memory.model_bytes(stage.state.params)
    )
    self.assertNotEmpty(found)
    self.assertIn("mlp", found[0].path)
    self.assertEqual(jax.device_count(), 8)


if __name__ == "__main__":
  absltest.main()
