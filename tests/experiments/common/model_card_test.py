"""Model cards, of handmade results and of a run that is pushed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import huggingface_hub
import pytest
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments.common import model_card
from jaxalign.runtime.io import artifact
from tests import checkout, hub_server
from tests.runtime.reward_sources import model_test

COMMIT = hub_server.COMMIT


def described(kind="reward", **changes):
  config = {
    "seed": 3,
    "model": {"init_from": "org/base@main", "dtype": "float32", "lora": None},
    "recipe": {"name": "mixture", "num_components": 2},
    "train": {"num_steps": 7, "batch_size": 4},
    "data": {"train_files": ["secret/place.jsonl"]},
  }
  fields = dict(
    kind=kind,
    heads=("a", "b") if kind == "reward" else (),
    max_length=64,
    calibration={"mean": [0.0, 0.0], "std": [1.0, 1.0]},
    utilities=None,
    mixture_weights=None,
    provenance={"jaxalign": "0", "step": 7, "config": config},
  )
  return artifact.Description(**fields | changes)


def score(value):
  return {"value": value, "low": value - 0.05, "high": value + 0.05}


def group(people, value):
  return {
    "num_people": people,
    "num_pairs": 10 * people,
    "accuracy": {"model": score(value)},
  }


def evaluation(**groups):
  scores = {name: score(0.5) for name in ("accuracy", "nll", "ece")}
  return {
    "models": {"model": {"all": {"num_pairs": 70, **scores}}},
    "baselines": {"all": {"chance": 0.5, "always_longer": 0.61}},
    "intervals_over": "people",
    "groups": groups,
    "mixtures": {},
    "lost": {},
    "warnings": ["the texts are short"],
  }


def card(describe=None, **content):
  none = dict(origin={}, evaluation={}, answers={})
  return model_card.text("me/mine", describe or described(), **none | content)


class CardTest(parameterized.TestCase):
  def test_says_what_a_persons_own_pairs_are_worth(self):
    lines = [
      {"pairs_seen": 0, "accuracy": 0.75},
      {"pairs_seen": 10, "accuracy": 0.8712},
    ]
    people = {"model": {"kind": "low_rank", "rank": 2, "new_users": lines}}
    text = card(evaluation=evaluation() | {"personal": people})
    self.assertIn("New people, by their own pairs:", text)
    self.assertIn("| 10 | 0.871 |", text)
    people["model"]["new_users"] = []
    text = card(evaluation=evaluation() | {"personal": people})
    self.assertNotIn("New people", text)

  def test_says_how_the_model_was_made(self):
    contents = {"data.train_files": "f00d"}
    origin = {"contents": contents, "revisions": {"model.init_from": COMMIT}}
    text = card(origin=origin)
    header = huggingface_hub.ModelCard(text).data
    self.assertEqual(header.base_model, "org/base")
    self.assertEqual(header.pipeline_tag, "text-classification")
    self.assertIn("reward-model", header.tags)
    self.assertIn(
      f"[org/base](https://huggingface.co/org/base) at {COMMIT}", text
    )
    for row in (
      "| `recipe.name` | `mixture` |",
      "| `recipe.num_components` | `2` |",
      "| `train.num_steps` | `7` |",
      "| `seed` | `3` |",
      "| `data.train_files` | `f00d` |",
    ):
      self.assertIn(row, text)
    self.assertIn("Outputs: `a`, `b`.", text)
    self.assertIn("Nothing was held out", text)
    self.assertNotIn("secret", text)

  def test_groups_of_fewer_than_five_people_are_not_shown(self):
    groups = dict(many=group(5, 0.8), others=group(6, 0.6), few=group(4, 0.1))
    text = card(evaluation=evaluation(**groups))
    self.assertIn("| many | 5 | 50 | 0.800 [0.750, 0.850] |", text)
    self.assertIn("serves group `others` worst, with accuracy 0.600", text)
    self.assertIn("1 group of fewer than 5 named people are not shown", text)
    self.assertNotIn("few |", text)
    self.assertIn("always longer 0.610", text)
    self.assertIn("- the texts are short", text)

  def test_no_group_without_people_is_shown(self):
    text = card(evaluation=evaluation(one=group(0, 0.8), two=group(0, 0.6)))
    self.assertNotIn("Accuracy by group", text)
    self.assertNotIn("worst", text)

  def test_a_policy_has_its_errors(self):
    text = card(
      described("policy"),
      evaluation={"eval/utility/warm": 0.25, "eval/kl": 1.5},
      answers={"end": {"num_prompts": 9, "standard_error": {"warm": 0.125}}},
    )
    self.assertIn("| `eval/utility/warm` | 0.250 ± 0.125 |", text)
    self.assertIn("| `eval/kl` | 1.500 |", text)
    self.assertIn("On 9 held-out prompts", text)
    self.assertIn("AutoModelForCausalLM", text)

  def test_a_run_without_a_model_has_no_card(self):
    workdir = epath.Path(tempfile.mkdtemp())
    with self.assertRaisesRegex(ValueError, "not written by a finished stage"):
      model_card.write(workdir, "me/mine")


class PushTest(absltest.TestCase):
  @pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
  def test_the_folder_goes_to_the_hub_with_its_card(self):
    hub = hub_server.start(self, None)
    workdir = epath.Path(tempfile.mkdtemp())
    os.symlink(model_test.folder(), workdir / "model")
    file = workdir / "model" / "jaxalign.json"
    content = json.loads(file.read_text())
    content["provenance"] = described().provenance
    file.write_text(json.dumps(content))
    (address,) = model_card.push(workdir, "me/mine")
    self.assertEndsWith(address, f"/me/mine/commit/{COMMIT}")
    files = hub.repositories["me/mine"]["files"]
    self.assertContainsSubset(
      ("README.md", "config.json", "jaxalign.json", "model.safetensors"), files
    )
    self.assertStartsWith(files["README.md"].decode(), "---\nlibrary_name:")

  @pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
  def test_each_of_several_models_goes_to_a_repository_of_its_own(self):
    hub = hub_server.start(self, None)
    workdir = epath.Path(tempfile.mkdtemp())
    (workdir / "models").mkdir()
    given = evaluation(all=group(9, 0.7))
    for number, value in enumerate((0.6, 0.8)):
      name, head = f"component_{number}", f"model, head {number}"
      shutil.copytree(model_test.folder(), workdir / "models" / name)
      file = workdir / "models" / name / "jaxalign.json"
      content = json.loads(file.read_text())
      content["provenance"] = described().provenance
      file.write_text(json.dumps(content))
      scores = {key: score(value) for key in ("accuracy", "nll", "ece")}
      own = {"all": {"num_pairs": 70, **scores}}
      given["models"][head] = own
      given["groups"]["all"]["accuracy"][head] = score(value)
    del given["models"]["model"]
    (workdir / "eval.json").write_text(json.dumps(given))
    addresses = model_card.push(workdir, "me/mine")
    self.assertLen(addresses, 2)
    for number, (mine, other) in enumerate(((0.6, 0.8), (0.8, 0.6))):
      name = f"me/mine-component_{number}"
      self.assertIn(f"/{name}/commit/", addresses[number])
      files = hub.repositories[name]["files"]
      self.assertIn("model.safetensors", files)
      card = files["README.md"].decode()
      self.assertIn(f"# mine-component_{number}", card)
      self.assertIn(f'from_pretrained("{name}")', card)
      self.assertIn(f"{mine:.3f} [", card)
      self.assertNotIn(f"{other:.3f} [", card)

  def test_models_are_in_the_order_of_their_numbers(self):
    workdir = epath.Path(tempfile.mkdtemp())
    for number in (10, 2, 0):
      (workdir / "policies" / f"component_{number}").mkdir(parents=True)
    found = model_card.folders_of(workdir, "me/mine")
    self.assertEqual(
      [*found], [f"me/mine-component_{number}" for number in (0, 2, 10)]
    )
    (workdir / "model").mkdir()  # then that is what the run has left
    self.assertEqual([*model_card.folders_of(workdir, "me/mine")], ["me/mine"])

  @pytest.mark.slow
  def test_a_training_run_is_pushed_by_a_flag(self):
    hub = hub_server.start(self, None)
    workdir = tempfile.mkdtemp()
    command = [
      *(sys.executable, "-m", "jaxalign.experiments.train_reward"),
      "--config=configs/mixture.py:smoke",
      *(f"--workdir={workdir}", "--push_to=me/mine"),
    ]
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1"}
    for _ in range(2):  # a finished run is evaluated and pushed again
      done = subprocess.run(
        command,
        cwd=checkout.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
      )
      self.assertEqual(done.returncode, 0, done.stderr)
      self.assertIn(f"pushed: {hub.url}/me/mine/commit/", done.stderr)
    text = hub.repositories["me/mine"]["files"]["README.md"].decode()
    people = json.loads((epath.Path(workdir) / "eval.json").read_text())
    names = people["mixtures"]["model"]["users"]["names"]
    self.assertNotEmpty(names)
    self.assertEmpty([name for name in names if name in text])
    for name, part in people["groups"].items():
      self.assertIn(f"| {name} | {part['num_people']} |", text)
      self.assertGreaterEqual(part["num_people"], 5)
    self.assertIn("New people, by their own pairs", text)


if __name__ == "__main__":
  absltest.main()
