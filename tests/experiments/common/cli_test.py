"""The flags that every stage shares, up to the first call of a stage."""

import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.experiments.common import cli, stage_help
from jaxalign.runtime.distributed import multihost
from tests import checkout
from tests.experiments.common import command_lines


class JoinHostsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(coordinator=None), None),
    (dict(coordinator="auto"), (None, None, None)),
    (
      dict(coordinator="host:1", num_processes=2, process_id=1),
      ("host:1", 2, 1),
    ),
  )
  def test_only_a_coordinator_starts_many_hosts(self, given, wanted):
    given = dict(num_processes=None, process_id=None) | given
    with mock.patch.object(multihost, "initialize") as initialize:
      cli.join_hosts(**given, timeout_s=5)
    if wanted is None:
      initialize.assert_not_called()
      return
    keys = "coordinator", "num_processes", "process_id"
    initialize.assert_called_once_with(
      **dict(zip(keys, wanted, strict=True)), timeout_s=5
    )

  @parameterized.parameters(None, "auto")
  def test_numbers_without_an_address_are_refused(self, coordinator):
    with self.assertRaisesRegex(ValueError, "--process_id=1 need"):
      cli.join_hosts(
        coordinator=coordinator, num_processes=2, process_id=1, timeout_s=5
      )


CROWD = "--config=configs/rm_bt_crowd.py:smoke"
WORKDIR = "--workdir=WORKDIR/run"


class CommandLineTest(parameterized.TestCase):
  """What is wrong is said in one line, with exit status 2."""

  MISTAKES = (
    ([CROWD], r"--workdir is missing: folder for everything"),
    ([WORKDIR], r"--config is missing: the run's config, as FILE.py"),
    (
      ["--config=configs/rm_bt_crwd.py", WORKDIR],
      r"no config file configs/rm_bt_crwd.py; did you mean "
      r"configs/rm_bt_crowd.py or",
    ),
    (["--config=rm_bt_crow", WORKDIR], r"did you mean configs/rm_bt_crowd.py"),
    (["--config=no/way.py", WORKDIR], r"configs holds \d+, such as configs/"),
    (
      ["--config=configs/rm_bt_crowd.py:smok", WORKDIR],
      r"rm_bt_crowd.py: variant must be one of .*'smoke'\), got 'smok'",
    ),
    (["--config=WORKDIR/raises.py", WORKDIR], r"raises.py:2: NameError: .*nil"),
    (["--config=WORKDIR/torn.py", WORKDIR], r"torn.py:1: "),
    (["--config=WORKDIR/empty.py", WORKDIR], r"has no function get_config"),
    (
      [CROWD, WORKDIR, "--config.optimizer.learning_ratee=1"],
      r"key config.optimizer.learning_ratee; did you mean "
      r"optimizer.learning_rate\?",
    ),
    (
      [CROWD, WORKDIR, "--config.learning_rate=1"],
      r"key config.learning_rate; did you mean optimizer.learning_rate\?",
    ),
    (
      [CROWD, WORKDIR, "--config.optimiser.learning_rate=1"],
      r"config.optimiser.learning_rate; did you mean optimizer.learning_rate\?",
    ),
    (
      [CROWD, WORKDIR, "--config.model.lora.rank=1"],
      r"configs/rm_bt_crowd.py has no model.lora; set all of it",
    ),
    (
      [CROWD, WORKDIR, "--config.train.num_steps=many"],
      r"config.train.num_steps=many: must be a whole number or None",
    ),
    (
      [CROWD, WORKDIR, "--config.train.num_steps=None"],
      r"config.train.num_steps must be int, got None",
    ),
    (
      [CROWD, WORKDIR, "--config.recipe=mixture"],
      r"--config.recipe=mixture: must be a section",
    ),
    (
      [CROWD, WORKDIR, "--config.recipe.name=mixture"],
      r"missing keys config.recipe.num_components, .*steps_per_round$",
    ),
    # Defaults are those of the section that the name picks.
    (
      [
        "--config=configs/rm_contrastive_crowd.py",
        *("--config.recipe.name", "mean_variance"),
        *("--config.recipe.anchor=-1", WORKDIR),
      ],
      r"config.recipe: anchor must be > 0, got -1",
    ),
    # A section where there is none, and one in the place of another.
    (
      [CROWD, WORKDIR, "--config.model.lora={'rank': 0}"],
      r"config.model.lora: rank must be >= 1, got 0",
    ),
    (
      [CROWD, WORKDIR, "--config.recipe={'name': 'dprm', 'epsilon': 0.0}"],
      r"config.recipe: epsilon must be > 0",
    ),
    # None is taken, and what remains is said of the section.
    (
      [CROWD, WORKDIR, "--config.model.architecture=None"],
      r"config.model: init_from or architecture must be set",
    ),
    # A key that the file leaves at its default, by its own type: a text.
    (
      [CROWD, WORKDIR, "--config.model.init_from=7"],
      r"7/config.json is missing",
    ),
    # The same, and one of another type.
    (
      [CROWD, WORKDIR, "--config.model.attention=no"],
      r"attention must be one of dense, fused, splash, got 'no'",
    ),
    (
      [CROWD, WORKDIR, "--config.train.eval_every=None", "steps=3"],
      r"unknown argument 'steps=3'; options begin with --",
    ),
    ([CROWD, WORKDIR, "--wrkdir=x"], r"flag 'wrkdir'. Did you mean: workdir"),
    (
      ["--config=configs/evaluate.py", WORKDIR],
      r"configs/evaluate.py: this is an evaluate config, for python -m "
      r"jaxalign.experiments.evaluate, and not a train_reward config: unknown",
    ),
    ([CROWD, "--workdir=WORKDIR/torn.py"], r"torn.py is a file; give a folder"),
    ([CROWD, "--workdir=ftp://a/b"], r"ftp://a/b: must be a folder, gs:// or"),
    (
      [CROWD, WORKDIR, "--config.data.train_files=gone.jsonl"],
      r"source gone.jsonl: no file matches gone.jsonl",
    ),
  )
  OF_OTHERS = (
    (
      "serve",
      [CROWD, WORKDIR],
      r"a train_reward config, .* not a serve config",
    ),
    (
      "serve",
      [CROWD, WORKDIR, "--config.source.models=('x',)"],
      r"a train_reward config, .* not a serve config: unknown key",
    ),
    ("train_policy", [CROWD, WORKDIR], r"and not a train_policy config"),
    (
      "train_policy",
      [
        "--config=configs/policy_maxmin_crowd.py:smoke",
        *(WORKDIR, "--config.kl.nothing=1"),
      ],
      r"(?<!config: )unknown key config.kl.nothing",
    ),
    ("compile", [CROWD], r"--topology is missing: a TPU slice"),
    # The stage decides what is a key, wherever it is named.
    (
      "compile",
      [
        "--config=configs/denoise_crowd.py:smoke",
        *("--config.ensemble.at_once=7", "--topology=v5e:4x4"),
        "--stage=denoise",
      ],
      r"config.ensemble: at_once must divide num_members 3, got 7",
    ),
    ("hardware_check", ["--config=no.py", WORKDIR], r"no config file no.py"),
    ("serve", ["--verbose", "--config=no.py", WORKDIR], r"no config file no.p"),
    ("serve", ["--verbose", CROWD, WORKDIR], r"a train_reward config"),
  )

  def test_mistakes(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    for name, text in (
      ("raises.py", "def get_config():\n  return nil\n"),
      ("torn.py", "def get_config(\n"),
      ("empty.py", "x = 1\n"),
    ):
      pathlib.Path(folder, name).write_text(text)
    cases = [("train_reward", *row) for row in self.MISTAKES] + [
      *self.OF_OTHERS
    ]
    lines = [
      (stage, [argument.replace("WORKDIR", folder) for argument in arguments])
      for stage, arguments, _ in cases
    ]
    helped = [(stage, ["--help"]) for stage in ("score", "train_reward")]
    *found, score, reward = command_lines.outcomes([*lines, *helped])
    self.check_help(*score)
    for (stage, _), said in zip(helped, (score, reward), strict=True):
      file = checkout.LIBRARY / f"experiments/{stage}.py"
      self.assertEqual(said, (0, stage_help.of_stage(file)))
    for line, (status, text), (*_, wanted) in zip(
      lines, found, cases, strict=True
    ):
      with self.subTest(line=line):
        last = text.splitlines()[-1]
        self.assertEqual(status, 2, text)
        self.assertRegex(last, f"^error: .*{wanted}")
        self.assertEqual("Traceback" in text, "--verbose" in line[1])

  def check_help(self, status, said):
    """The program, its flags, then every key of its config."""
    self.assertEqual(status, 0, said)
    flags, keys = said.split("\nKeys of the config", 1)
    self.assertIn("python -m jaxalign.experiments.score", flags)
    self.assertIn("--workdir\n    folder for everything", flags)
    self.assertNotIn("--pdb", flags)
    self.assertIn("\nmodel: str, required\n    a reward model's folder", keys)
    self.assertIn("\ndata.max_length: int = 512\n    tokens of prompt", keys)


if __name__ == "__main__":
  absltest.main()
