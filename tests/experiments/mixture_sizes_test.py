"""The number of tastes by held-out people: runs, skips, refuses."""

import json
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments import mixture_sizes, train_reward
from tests.experiments.reward_model import mixture_rounds_test


def config(**changes):
  given = dict(data__split_by="annotator", recipe=dict(restarts=1))
  return mixture_rounds_test.config(**given | changes)


class SizesTest(parameterized.TestCase):
  def test_the_likeliest_number_is_chosen_and_done_runs_are_not_repeated(self):
    nll, tried = {1: 0.7, 2: 0.5, 3: 0.6}, []

    def train(given, folder, *, profile):
      del profile
      number = given.recipe.num_components
      tried.append(number)
      rows = [{"step": 1, "eval/user_nll": 9.0}, {"step": 2}]
      rows += [{"step": 2, "eval/user_nll": nll[number]}]
      (folder / "metrics.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in rows)
      )
      (folder / "report.html").write_text("")
      (folder / "model").mkdir()
      (folder / "model" / "config.json").write_text("{}")

    workdir = epath.Path(tempfile.mkdtemp())
    with mock.patch.object(train_reward, "run", train):
      mixture_sizes.run(config(), workdir, max_components=2)
      mixture_sizes.run(config(), workdir, max_components=3)
      with self.assertRaisesRegex(
        ValueError, "components_1 holds.*seed=0, and"
      ):
        mixture_sizes.run(config(seed=1), workdir, max_components=3)
    self.assertEqual(tried, [1, 2, 3])
    self.assertEqual(
      json.loads((workdir / "sizes.json").read_text()),
      {"user_nll": {str(k): v for k, v in nll.items()}, "chosen": 2},
    )

  def test_one_taste_is_a_mixture_too(self):
    workdir = epath.Path(tempfile.mkdtemp())
    given = config(
      recipe=dict(restarts=1, num_components=1),
      train__num_steps=2,
      optimizer__warmup_steps=1,
    )
    train_reward.run(given, workdir, profile=False)
    rows = (workdir / "metrics.jsonl").read_text()
    self.assertIn("eval/user_nll", rows)
    self.assertEqual(
      json.loads((workdir / "mixture.json").read_text())["mixture_weights"],
      [1.0],
    )

  @parameterized.parameters(
    (dict(recipe=dict(restarts=1, assignment="oracle")), 2, "must not be"),
    (dict(data__split_by=None), 2, "must be 'annotator'.*got None"),
    (dict(), 1, "max_components must be >= 2, got 1"),
  )
  def test_refuses(self, changes, number, message):
    with self.assertRaisesRegex(ValueError, message):
      mixture_sizes.run(config(**changes), epath.Path(), max_components=number)


if __name__ == "__main__":
  absltest.main()
