"""What a step's FLOPs are said to be against what the compiler counts."""

import jax
from absl.testing import absltest, parameterized

from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.profiling import memory
from tests import shipped

PAIRS, LENGTH, PROMPTS, RESPONSES = 4, 32, 3, 3
# Less work on machine code, which nobody runs.
QUICK = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


def stage_of(file: str, **recipe):
  """A step wide enough for its matrix products to be most of it."""
  cfg = shipped.config(file, "smoke")
  with cfg.ignore_type():
    # One layer: the compiler counts the body of a loop over layers once.
    cfg.model.update(remat="none")
    cfg.model.architecture.update(
      num_layers=1, num_heads=4, num_kv_heads=4, embed_dim=128, mlp_dim=512
    )
    cfg.data.update(max_length=LENGTH, buckets=(LENGTH,))
    cfg.train.batch_size = PAIRS
    cfg.mesh.data = 1
    cfg.recipe.update(recipe)
  config = configuration.to_dataclass(train_reward.Config, cfg)
  return train_reward.build(
    config, meshes.make_mesh(config.mesh, jax.devices()[:1])
  )


def counted(stage) -> float:
  compiled = stage.lower().compile(compiler_options=QUICK)
  return compiled.cost_analysis()["flops"]


class StepFlopsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.plain = stage_of("rm_bt_crowd")
    cls.counted = counted(cls.plain)

  def more_work(self, file: str, **recipe) -> tuple[float, float]:
    """Work over that of a plain step: by formula, and as it is counted."""
    stage = stage_of(file, **recipe)
    (program,), (plain,) = stage.programs(), self.plain.programs()
    # Of one step's products; both have the optimiser besides.
    extra = (counted(stage) - self.counted) / plain.flops
    return program.flops / plain.flops, 1 + extra

  def test_a_plain_step(self):
    (program,) = self.plain.programs()
    self.assertBetween(self.counted / program.flops, 1.0, 1.15)

  def test_two_views_are_twice_the_work(self):
    said, found = self.more_work("rm_contrastive_crowd")
    self.assertAlmostEqual(said, 2)
    self.assertAlmostEqual(found / said, 1, delta=0.05)

  @parameterized.parameters(
    (dict(measure=True), 3 + 1),
    (dict(second_order=True, measure=False), 3 + 6),
  )
  def test_fresh_responses_count_as_often_as_they_are_read(
    self, recipe, passes
  ):
    said, found = self.more_work(
      "rm_metarm_crowd",
      num_prompts=PROMPTS,
      num_responses=RESPONSES,
      **recipe,
    )
    fresh = PROMPTS * RESPONSES / (2 * PAIRS)
    once_more = 1 / 3 if recipe["measure"] else 0  # the pairs, forwards
    self.assertAlmostEqual(said, 1 + once_more + fresh * passes / 3)
    # What the curvature shares with the gradient is computed again in part.
    again = fresh if "second_order" in recipe else 0
    self.assertBetween(found, 0.95 * said, 1.05 * said + again)

  def test_no_step_has_no_curvature(self):
    stage = stage_of("rm_metarm_crowd", second_order=True, step_size=0.0)
    self.assertEqual(
      stage.passes,
      stage_of("rm_metarm_crowd", step_size=0.0).passes,
    )

  def test_members_score_one_batch_each(self):
    passes = {"tokens": ("forward",) * 3}
    one, three = (
      memory.batch_flops(self.plain.network, self.plain.batch, wanted)
      for wanted in (memory.FORWARD, passes)
    )
    self.assertEqual(three, 3 * one)


if __name__ == "__main__":
  absltest.main()
