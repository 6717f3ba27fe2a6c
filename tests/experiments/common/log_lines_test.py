"""What a person who runs a stage reads on standard error."""

import contextlib
import io
import logging

from absl import logging as absl_logging
from absl.testing import absltest

from jaxalign.experiments.common import cli
from jaxalign.experiments.datasets import section

log = logging.getLogger("jaxalign")


class LogLinesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    quiet = logging.getLogger("transformers"), logging.getLogger("absl")
    before = log.handlers[:], log.propagate, log.level
    levels = [one.level for one in quiet]
    verbosity = absl_logging.get_verbosity()
    handler = absl_logging.get_absl_handler()
    formatter = handler.formatter

    def restore():
      log.handlers[:], log.propagate = before[:2]
      log.setLevel(before[2])
      absl_logging.set_verbosity(verbosity)
      handler.setFormatter(formatter)
      for one, level in zip(quiet, levels, strict=True):
        one.setLevel(level)

    self.addCleanup(restore)
    self.said = io.StringIO()
    self.enter_context(contextlib.redirect_stderr(self.said))

  def test_a_time_and_a_sentence(self):
    cli.set_up_logging(is_main=True)
    log.info("%d pairs", 7)
    log.debug("programs compiled: 1")
    logging.getLogger("jaxalign.runtime.distributed.multihost").warning(
      "a host is late"
    )
    first, second = self.said.getvalue().splitlines()
    self.assertRegex(first, r"^\d\d:\d\d:\d\d 7 pairs$")
    self.assertRegex(second, r"^\d\d:\d\d:\d\d warning: a host is late$")

  def test_a_traceback_stays(self):
    cli.set_up_logging(is_main=True)
    try:
      raise KeyError("lost")
    except KeyError:
      log.exception("no rewards")
    self.assertIn("error: no rewards\nTraceback", self.said.getvalue())

  def test_lines_follow_standard_error(self):
    # As under a progress bar, which takes its place to stay below them.
    cli.set_up_logging(is_main=True)
    instead = io.StringIO()
    with contextlib.redirect_stderr(instead):
      log.info("above the bar")
    self.assertIn("above the bar", instead.getvalue())
    self.assertEmpty(self.said.getvalue())

  def test_other_processes_and_libraries_say_what_went_wrong(self):
    cli.set_up_logging(is_main=False)
    log.info("going well")
    absl_logging.warning("sharding info not provided")
    logging.getLogger("transformers.tokenization").warning("be sure to train")
    log.warning("going badly")
    self.assertLen(self.said.getvalue().splitlines(), 1)
    self.assertIn("warning: going badly", self.said.getvalue())

  def test_counts_in_words(self):
    self.assertEqual(section.in_words({"truncated_prompts": 0}), "nothing")
    self.assertEqual(
      section.in_words({"truncated_prompts": 1200, "skipped": 1, "tie": 0}),
      "1,200 truncated prompts, 1 skipped",
    )


if __name__ == "__main__":
  absltest.main()
