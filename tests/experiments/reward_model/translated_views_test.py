"""Back-translated views in a run: in its batches, and from the file again."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.records import chat
from jaxalign.data.records.record import Record
from jaxalign.experiments import train_reward
from jaxalign.experiments.reward_model import fitting, translated_views
from jaxalign.runtime.distributed import mesh as meshes
from tests.data import rude_server
from tests.experiments.llm_labels.back_translation_test import polite
from tests.experiments.train_reward_test import smoke_config


def config_of(url, file=None, **changes):
  file = file or str(epath.Path(tempfile.mkdtemp()) / "said.jsonl")
  return smoke_config(
    recipe=dict(
      name="contrastive",
      augmentation="back_translation",
      translator=dict(url=url, file=file, budget=0.0, concurrency=32),
    ),
    data__train_files=("synthetic:two_groups,num_annotators=2:train",),
    model__dropout=0.0,
    train__eval_every=None,
    train__num_steps=3,
    **changes,
  )


class TranslatedViewsTest(parameterized.TestCase):
  def test_batches_hold_both_texts_of_every_response(self):
    with rude_server.serving(polite) as server:
      config, loaded = fitting.load(config_of(server.url))
    made = config.made()
    batch = fitting.batches(config, loaded)[0]
    shapes = made.batch_shapes(config.train.batch_size, 128)
    self.assertEqual({*batch}, {*shapes})
    for name, spec in shapes.items():
      self.assertEqual(batch[name].dtype, spec.dtype)
      self.assertEqual(batch[name].shape[:-1], spec.shape[:-1])
    read = lambda name, at: bytes(
      t for t in batch[name][at][batch[f"{name[:-6]}mask"][at]] if t < 256
    )
    for at in np.ndindex(config.train.batch_size, 2):
      self.assertEqual(read("view_tokens", at), read("tokens", at) + b" indeed")
    np.testing.assert_array_equal(
      batch["view_prompt_lengths"], batch["prompt_lengths"]
    )
    self.assertEqual(loaded.learned.report["untranslated_responses"], 0)
    self.assertIsNone(loaded.pairs.dataset.views)
    few = loaded.learned.dataset.first(3)
    self.assertLen(few.views, 6)
    self.assertEqual(
      few.widths.tolist(), few.views.lengths.reshape(3, 2).max(1).tolist()
    )
    # The step is built of what a batch holds, before there is any.
    stage = fitting.build(config, meshes.make_mesh(config.mesh))
    self.assertEqual(stage.batch["view_tokens"].shape, (8, 2, 128))
    self.assertEqual({*stage.passes}, {"tokens", "view_tokens"})

  def test_a_run_trains_and_its_twin_asks_nobody(self):
    losses = []
    file = str(epath.Path(tempfile.mkdtemp()) / "said.jsonl")
    with rude_server.serving(polite) as server:
      for _ in range(2):
        workdir = epath.Path(tempfile.mkdtemp())
        asked = sum(server.seen.values())
        config = config_of(server.url, file)
        train_reward.run(config, workdir, profile=False)
        rows = (workdir / "metrics.jsonl").read_text().splitlines()
        losses.append([
          json.loads(row)["train/contrastive"]
          for row in rows
          if "train/contrastive" in row
        ])  # fmt: skip
      self.assertEqual(sum(server.seen.values()), asked)
    self.assertEqual(losses[0], losses[1])
    self.assertNotEmpty(losses[0])

  def test_what_has_no_translation_stays(self):
    turns = (
      chat.Turn("assistant", "a"),
      chat.Turn("user", "b"),
      chat.Turn("assistant", "c"),
    )
    records = [Record("p", ("one", turns)), Record("p", ("two", "one"))]
    views = translated_views.ViewStream(records, {"one": "uno"})
    for _ in range(2):  # read again and again
      self.assertEqual(
        [record.responses for record in views],
        [("uno", turns), ("two", "uno")],
      )

  def test_nobody_answers(self):
    def silent(handler, asked, before):
      rude_server.reply(handler, "")

    with rude_server.serving(silent) as server:
      config = config_of(server.url)
      with self.assertRaisesRegex(
        ValueError, "none of [0-9]+ responses has a translation"
      ):
        fitting.load(config)

  def test_errors(self):
    config = config_of("http://localhost:1/v1")
    with self.assertRaisesRegex(ValueError, "passes each text once"):
      config.made().check(
        dataclasses.replace(config.model, trainable="head", init_from="m",
                            architecture=None)
      )  # fmt: skip
    recipe = translated_views.ContrastiveRecipeConfig
    with self.assertRaisesRegex(ValueError, "got none with 'back_translation'"):
      recipe("contrastive", augmentation="back_translation")
    with self.assertRaisesRegex(ValueError, "got one with 'masking'"):
      recipe(
        "contrastive",
        augmentation="masking",
        mask_token=1,
        translator=config.recipe.translator,
      )


if __name__ == "__main__":
  absltest.main()
