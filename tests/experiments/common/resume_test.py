"""A workdir is gone on from by the run that it holds, and by no other."""

import ast
import dataclasses
import json
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments import sample
from jaxalign.experiments.common import config_changes, provenance, resume
from tests import checkout
from tests.experiments import sample_test, train_reward_test

ROW = '{"prompt": "q", "chosen": "a", "rejected": "b"}\n'


def set_key(config, key, value):
  """A config with a dotted key set."""
  first, _, rest = key.partition(".")
  if rest:
    value = set_key(getattr(config, first), rest, value)
  return dataclasses.replace(config, **{first: value})


class ContinuingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())
    self.data = epath.Path(tempfile.mkdtemp()) / "pairs.jsonl"
    self.data.write_text(ROW)
    self.config = train_reward_test.smoke_config(
      data__train_files=(str(self.data),), data__eval_files=()
    )

  def begin(self, *changes, config=None, resumes=True):
    config = self.config if config is None else config
    for key, value in changes:
      config = set_key(config, key, value)
    resume.begin(config, self.workdir, resumes=resumes)

  def saved(self):
    """Pretends that a step was saved."""
    (self.workdir / "checkpoints" / "2").mkdir(parents=True)

  def files(self):
    names = "config.json", "origin.json"
    return [(self.workdir / name).read_text() for name in names]

  @parameterized.parameters(
    ("optimizer.learning_rate", 0.5, "0.003"),
    ("seed", 3, "0"),
    ("train.batch_size", 16, "8"),
    ("model.architecture.num_heads", 1, "4"),
    ("model.dtype", "bfloat16", "'float32'"),
    ("data.max_length", 64, "128"),
    ("train.num_steps", 5, "6"),
  )
  def test_another_config_is_refused_and_nothing_is_written(
    self, key, value, old
  ):
    self.begin()
    self.saved()
    before = self.files()
    message = f"began with {key}={old}, and it is {value!r} now.*new --workdir"
    with self.assertRaisesRegex(ValueError, message):
      self.begin((key, value))
    self.assertEqual(self.files(), before)
    self.begin()

  def test_all_other_keys_are_named(self):
    self.begin()
    self.saved()
    with self.assertRaisesRegex(
      ValueError, r"optimizer.b1=.*now \(and optimizer.b2, seed\)"
    ):
      self.begin(("seed", 1), ("optimizer.b2", 0.5), ("optimizer.b1", 0.5))

  @parameterized.parameters(
    ("train.num_steps", 60),
    ("train.eval_every", 1),
    ("train.checkpoint_every", 1),
    ("train.keep_last", 9),
    ("mesh.fsdp", 2),
    ("data.prefetch", 7),
    ("eval.num_samples", 5),
  )
  def test_what_may_change_is_written_and_remembered(self, key, value):
    self.begin()
    self.saved()
    self.begin((key, value))
    config, found = map(json.loads, self.files())
    section, name = key.split(".")
    self.assertEqual(config[section][name], value)
    (change,) = found["changes"]
    self.assertEqual((change["key"], change["new"]), (key, value))

  def test_a_run_that_left_nothing_is_not_gone_on_from(self):
    self.begin()
    (self.workdir / "checkpoints").mkdir()
    (self.workdir / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir()
    (self.workdir / "metrics.jsonl").write_text("")
    self.begin(("train.batch_size", 16))
    self.assertEqual(json.loads(self.files()[0])["train"]["batch_size"], 16)

  @parameterized.parameters("checkpoints/index.json", "model/a", "restarts/0/a")
  def test_what_counts_as_results(self, name):
    self.begin()
    (self.workdir / name).parent.mkdir(parents=True)
    (self.workdir / name).write_text("x")
    with self.assertRaisesRegex(ValueError, "seed=0, and it is 1 now"):
      self.begin(("seed", 1))

  def test_files_may_move_but_not_change(self):
    self.begin()
    self.saved()
    moved = epath.Path(tempfile.mkdtemp()) / "elsewhere.jsonl"
    moved.write_text(ROW)
    self.begin(("data.train_files", (str(moved),)))
    before = self.files()
    with self.assertRaisesRegex(ValueError, "began with data.train_files="):
      self.begin(("data.train_files", (str(moved), str(self.data))))
    moved.write_text(ROW + ROW)
    with self.assertRaisesRegex(
      ValueError, r"another content of data.train_files=\('.*fingerprint was "
    ):
      self.begin(("data.train_files", (str(moved),)))
    self.assertEqual(self.files(), before)

  def test_the_initial_model_and_the_tokenizer_are_inputs(self):
    for name in ("model.safetensors", "tokenizer.json"):
      folder = epath.Path(sample_test.policy())
      config = dataclasses.replace(
        self.config,
        model=dataclasses.replace(
          self.config.model, init_from=str(folder), architecture=None
        ),
      )
      self.workdir = epath.Path(tempfile.mkdtemp())
      self.begin(config=config)
      self.saved()
      (folder / "README.md").write_text("read by people")
      self.begin(config=config)
      content = bytearray((folder / name).read_bytes())
      content[-9] ^= 1
      (folder / name).write_bytes(bytes(content))
      with self.assertRaisesRegex(ValueError, "content of model.init_from='"):
        self.begin(config=config)

  def test_a_key_that_is_new_and_has_a_default_is_no_difference(self):
    self.begin()
    self.saved()
    content = json.loads(self.files()[0])
    del content["model"]["attention"]
    (self.workdir / "config.json").write_text(json.dumps(content))
    self.begin()
    with self.assertRaisesRegex(ValueError, "seed=0"):
      self.begin(("seed", 1))

  def test_a_number_that_was_typed_may_be_counted(self):
    recipe = dict(name="mixture", num_components=2, steps_per_round=2)
    typed, counted = (
      train_reward_test.smoke_config(
        data__train_files=(str(self.data),), recipe=recipe | given
      )
      for given in (dict(num_users=40), {})
    )
    self.begin(config=typed)
    self.saved()
    self.begin(config=counted)
    with self.assertRaisesRegex(ValueError, "recipe.num_components=2"):
      self.begin(("recipe.num_components", 3), config=counted)

  def test_a_key_that_was_renamed_is_no_difference(self):
    self.begin()
    self.saved()
    content = json.loads(self.files()[0])
    content["rate"] = content["optimizer"].pop("learning_rate")
    (self.workdir / "config.json").write_text(json.dumps(content))
    with self.assertRaisesRegex(ValueError, "unknown key config.json.rate"):
      self.begin()
    renamed = {"rate": "optimizer.learning_rate"}
    with mock.patch.dict(config_changes.RENAMED, renamed):
      self.begin()

  def test_another_stage_is_refused(self):
    self.begin()
    self.saved()
    other = sample_test.config(sample_test.policy())
    for resumes in (True, False):
      with self.assertRaisesRegex(
        ValueError, "holds results.*not of this stage.*use a new --workdir"
      ):
        self.begin(config=other, resumes=resumes)

  def test_library_versions_are_recorded_and_warned_of(self):
    self.begin()
    self.saved()
    content = json.loads(self.files()[1])
    self.assertIn("jax", content["versions"])
    content["versions"]["jax"] = "0.1.2"
    (self.workdir / "origin.json").write_text(json.dumps(content))
    with self.assertLogs("jaxalign", "WARNING") as logs:
      self.begin()
    self.assertIn("began with jax 0.1.2 and goes on with", logs.output[0])
    self.assertEqual(json.loads(self.files()[1])["versions"]["jax"], "0.1.2")

  def test_a_longer_run_is_told_what_its_schedule_does(self):
    config = set_key(self.config, "optimizer.schedule", "cosine")
    self.begin(config=config)
    self.saved()
    with self.assertLogs("jaxalign", "WARNING") as logs:
      self.begin(("train.num_steps", 12), config=config)
    self.assertIn(
      "cosine schedule now ends at train.num_steps 12", logs.output[0]
    )

  def test_a_run_of_before_there_were_fingerprints_goes_on(self):
    self.begin()
    self.saved()
    (self.workdir / "origin.json").unlink()
    self.begin()
    self.assertIn("data.train_files", json.loads(self.files()[1])["contents"])

  def test_sampling_may_answer_more_prompts(self):
    config = sample_test.config(sample_test.policy(), limit=2)
    self.begin(config=config)
    (self.workdir / sample.FILE).write_text("{}\n")
    self.begin(("batch_size", 12), ("limit", None), config=config)
    for change in (("limit", 1), ("temperature", 0.5)):
      with self.assertRaisesRegex(ValueError, f"began with {change[0]}="):
        self.begin(("limit", None), change, config=config)

  def test_rows_that_read_otherwise_are_refused(self):
    resume.same_rows(self.workdir, "abc", start=0, main=True)
    resume.same_rows(self.workdir, "abc", start=4, main=True)
    with self.assertRaisesRegex(
      ValueError, "up to step 4: the fingerprint of its rows was abc and is abd"
    ):
      resume.same_rows(self.workdir, "abd", start=4, main=True)
    resume.same_rows(self.workdir, "abd", start=0, main=True)
    self.assertEqual(provenance.read(self.workdir), {"rows": "abd"})

  def test_the_guide_lists_what_may_change(self):
    guide = (checkout.ROOT / "docs/reliability.md").read_text()
    guide = guide.partition("## What may change between runs")[2].partition(
      "\n## "
    )[0]
    keys = config_changes.MAY_CHANGE | config_changes.MAY_CHANGE_AT_TOP
    for key in sorted(keys | config_changes.MAY_GROW | {*provenance.CONTENT}):
      if not key.startswith("judge."):
        self.assertIn(f"`{key}`", guide)

  def test_every_stage_that_keeps_anything_says_that_it_resumes(self):
    for path in (checkout.LIBRARY / "experiments").glob("*.py"):
      text = path.read_text()
      if "program.main(" not in text or path.stem == "tabular":
        continue
      call = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "program.main"
      )
      resumes = any(word.arg == "resumes" for word in call.keywords)
      keeps = "Checkpoints(" in text or "AppendedFile(" in text
      self.assertEqual(resumes, keeps, path.name)


if __name__ == "__main__":
  absltest.main()
