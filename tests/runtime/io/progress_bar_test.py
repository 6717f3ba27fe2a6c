"""What the bar and the plain lines say, under a clock of the test's own."""

import io
from unittest import mock

import rich.console
from absl.testing import absltest

from jaxalign.runtime.io import progress_bar
from jaxalign.runtime.profiling import compiled


class ProgressTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.clock = self.enter_context(
      mock.patch.object(progress_bar.time, "monotonic")
    )
    self.clock.return_value = 100.0
    for name, size in (("host", 2**31), ("device", 2**30)):
      self.enter_context(
        mock.patch.object(
          compiled, f"{name}_memory_bytes", lambda size=size: size
        )
      )
    self.text, self.width = io.StringIO(), 160

  def start(self, *, terminal=False, **options):
    console = rich.console.Console(
      file=self.text, force_terminal=terminal, width=self.width
    )
    shown = progress_bar.Progress(console=console, **options)
    shown.start()
    return shown

  def test_plain_lines_come_every_so_often(self):
    shown = self.start(start_step=10, num_steps=100, log_every_s=30.0)
    for step in range(11, 71):  # one second and 50 tokens each
      self.clock.return_value += 1.0
      shown.advance(step, tokens=50, loss=0.25, description="reward")
    lines = self.text.getvalue().splitlines()
    self.assertLen(lines, 2)
    self.assertEqual(
      lines[1],
      "reward 70/100, 0:00:30 left, 50 tokens/s, loss 0.25, host 2.00 GiB, "
      "device 1.00 GiB",
    )

  def test_steps_per_second_where_tokens_are_not_counted(self):
    shown = self.start(start_step=0, num_steps=9, log_every_s=1.0)
    shown.advance(1)
    self.clock.return_value += 4.0
    shown.advance(3)
    self.assertIn("train 3/9, 0:00:12 left, 0.5 steps/s", self.text.getvalue())

  def test_compilation_is_in_no_rate_and_in_no_time_left(self):
    shown = self.start(start_step=0, num_steps=1000, log_every_s=0.0)
    self.clock.return_value += 300.0  # compiles
    shown.advance(1, tokens=10)
    self.assertEqual(shown.rates(), (None, None))
    self.assertIn("train 1/1000, starting, host", self.text.getvalue())
    self.clock.return_value += 2.0
    shown.advance(2, tokens=10)
    self.assertEqual(shown.rates(), (0.5, 5.0))
    self.assertIn("train 2/1000, 0:33:16 left, 5 tok", self.text.getvalue())

  def test_the_end_says_how_long_it_took(self):
    shown = self.start(start_step=0, num_steps=2)
    self.clock.return_value += 61.0
    shown.advance(2)
    shown.stop()
    self.assertIn("train 2/2, 0:01:01 in all, host", self.text.getvalue())

  def test_fast_steps_are_not_kept_one_by_one(self):
    shown = self.start(start_step=0, num_steps=10**6)
    for step in range(1, 10_001):
      self.clock.return_value += 0.001
      shown.advance(step)
    self.assertLess(len(shown._marks), 100)
    self.assertAlmostEqual(shown.rates()[0], 1000.0, delta=1.0)

  def test_nothing_is_known_before_the_first_step(self):
    shown = self.start(start_step=0, num_steps=9)
    self.assertEqual(shown.rates(), (None, None))
    self.assertNotIn("speed/steps_per_second", shown.speed())

  def test_bar_is_drawn_on_a_terminal_only(self):
    shown = self.start(start_step=40, num_steps=100, terminal=True)
    for step in (40, 41):
      self.clock.return_value += 1.0
      shown.advance(step, tokens=50, loss=0.25)
    shown.stop()
    self.assertIn("41/100", self.text.getvalue())
    self.assertIn("50 tokens/s", self.text.getvalue())
    self.assertIn("━", self.text.getvalue())

  def test_numbers_survive_a_narrow_terminal(self):
    self.width = 80
    shown = self.start(start_step=0, num_steps=20_000, terminal=True)
    self.clock.return_value += 1.0
    shown.advance(10_000, tokens=12_345, loss=0.25)
    shown.stop()
    self.assertIn("10000/20000", self.text.getvalue())
    self.assertNotIn("…", self.text.getvalue())
    self.assertIn("1.00", self.text.getvalue())

  def test_markup_in_a_description_is_shown_as_it_is(self):
    for terminal in (False, True):
      shown = self.start(start_step=0, num_steps=9, terminal=terminal)
      shown.advance(1, description="[red]group[/red]")
      shown.stop()
      self.assertIn("[red]group[/red]", self.text.getvalue())
      self.text.truncate(0)


class WatchedTest(absltest.TestCase):
  def pass_over(self, items, *, terminal, **options):
    text = io.StringIO()
    console = rich.console.Console(
      file=text, force_terminal=terminal, width=160
    )
    with mock.patch.object(
      progress_bar.rich.console, "Console", lambda **_: console
    ):
      seen = list(progress_bar.watched(items, **options))
    self.assertEmpty(progress_bar._in_view)
    return seen, text.getvalue()

  def test_the_same_items_and_a_bar(self):
    seen, said = self.pass_over(
      "abc", terminal=True, total=3, what="scoring pairs"
    )
    self.assertEqual(seen, ["a", "b", "c"])
    self.assertIn("scoring pairs", said)
    self.assertIn("3/3", said)
    self.assertNotIn("GiB", said)

  def test_a_short_pass_says_nothing_where_there_is_no_terminal(self):
    seen, said = self.pass_over("abc", terminal=False, total=3, what="scoring")
    self.assertEqual((seen, said), (["a", "b", "c"], ""))

  def test_nobody_knows_how_many(self):
    seen, said = self.pass_over(
      iter("abc"), terminal=True, total=None, what="reading"
    )
    self.assertEqual(seen, ["a", "b", "c"])
    self.assertIn("3/?", said)

  def test_within_a_run_it_is_a_line_of_its_display(self):
    text = io.StringIO()
    console = rich.console.Console(file=text, force_terminal=True, width=160)
    run = progress_bar.Progress(start_step=0, num_steps=5, console=console)
    run.start()
    run.advance(1)
    passing = progress_bar.watched("ab", total=2, what="scoring pairs")
    with mock.patch.object(
      progress_bar.rich.console, "Console", lambda **_: console
    ):
      next(passing)
      self.assertLen(run._bar.tasks, 2)
      passing.close()  # what an error in the pass does
    self.assertLen(run._bar.tasks, 1)
    run.stop()
    self.assertIn("1/5", text.getvalue())


if __name__ == "__main__":
  absltest.main()
