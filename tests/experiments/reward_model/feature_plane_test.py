"""The plane of features: principal axes, and the picture of a trained run."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.experiments import train_reward
from jaxalign.experiments.reward_model import feature_plane
from jaxalign.models import config as models
from jaxalign.models import heads
from tests.experiments.train_reward_test import smoke_config


class FeaturePlaneTest(absltest.TestCase):
  def test_axes_are_those_of_the_covariance(self):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 2, 5)) * [1, 5, 1, 3, 1] + 7
    plane = feature_plane.principal_plane(features)
    rows = features.reshape(-1, 5)
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    np.testing.assert_allclose(
      plane.shares, values[:-3:-1] / values.sum(), rtol=1e-9
    )
    expected = (rows - rows.mean(0)) @ vectors[:, :-3:-1]
    np.testing.assert_allclose(
      np.abs(plane.points.reshape(-1, 2)),
      np.abs(expected),
      rtol=1e-4,
      atol=1e-5,
    )
    np.testing.assert_array_equal(
      plane.points, feature_plane.principal_plane(features.copy()).points
    )

  def test_equal_features_have_a_plane(self):
    plane = feature_plane.principal_plane(np.ones((3, 2, 4)))
    np.testing.assert_array_equal(plane.points, 0)
    np.testing.assert_array_equal(plane.shares, 0)

  def test_a_contrastive_run_shows_it_and_a_resumed_one_keeps_the_start(self):
    config = smoke_config(
      recipe=dict(name="contrastive"),
      model__dropout=0.05,
      train__num_steps=3,
      train__eval_every=None,
    )
    workdir = epath.Path(tempfile.mkdtemp())
    train_reward.run(config, workdir, profile=False)
    page = (workdir / "report.html").read_text()
    self.assertIn("Features before and after training", page)
    start = workdir / feature_plane.START
    saved = json.loads(start.read_text())
    self.assertLen(saved["points"], feature_plane.NUM_PAIRS)
    saved["points"] = [[[0.0, 0.0], [1.0, 1.0]]]
    start.write_text(json.dumps(saved))
    train_reward.run(config, workdir, profile=False)
    self.assertLen(json.loads(start.read_text())["points"], 1)

  def test_texts_are_changed_only_where_tokens_are_passed(self):
    masked = dict(name="contrastive", augmentation="masking", mask_token=259)
    config = smoke_config(recipe=masked)
    network = models.DecoderConfig(
      vocab_size=259, num_layers=1, num_heads=1, embed_dim=8, mlp_dim=8,
      num_outputs=1,
    )  # fmt: skip
    made = config.made().objective
    model = heads.reward_model(network)
    with self.assertRaisesRegex(ValueError, "mask_token must be below.*259"):
      made(model, network, 8)
    bigger = dataclasses.replace(network, vocab_size=260)
    made(heads.reward_model(bigger), bigger, 8)
    frozen = dataclasses.replace(bigger, num_texts=5)
    with self.assertRaisesRegex(ValueError, "changes tokens, and model.train"):
      made(heads.reward_model(frozen), frozen, 8)


if __name__ == "__main__":
  absltest.main()
