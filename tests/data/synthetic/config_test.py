"""Knobs as text; their ranges are tested with the crowd."""

from absl.testing import absltest, parameterized

from jaxalign.data.synthetic.config import CrowdConfig, with_knobs


class WithKnobsTest(parameterized.TestCase):
  def test_every_kind_of_value(self):
    changed = with_knobs(
      CrowdConfig(),
      [
        "groups=a/b/c",
        "tastes=warmth/none/topic",
        "shares=0.5/0.25/0.25",
        "drift=1",
        "votes_per_pair=5",
        "aggregate=true",
      ],
    )
    self.assertEqual(
      changed,
      CrowdConfig(
        groups=("a", "b", "c"),
        tastes=("warmth", "none", "topic"),
        shares=(0.5, 0.25, 0.25),
        drift=1.0,
        votes_per_pair=5,
        aggregate=True,
      ),
    )
    self.assertIsInstance(changed.drift, float)

  def test_no_knob_changes_nothing(self):
    self.assertEqual(with_knobs(CrowdConfig(), []), CrowdConfig())

  @parameterized.parameters(
    (["colour=1"], "knob must be one of aggregate.*got 'colour'"),
    (["drift"], "knobs are KNOB=VALUE, each once, got 'drift'"),
    (["drift=0", "drift=1"], "each once, got 'drift=1'"),
    (["drift=much"], "drift must be a number, got 'much'"),
    (
      ["votes_per_pair=2.5"],
      "votes_per_pair must be a whole number, got '2.5'",
    ),
    (["aggregate=yes"], "aggregate must be true or false, got 'yes'"),
    (["shares=1/x"], "shares must be a number, got 'x'"),
    (["shares=1"], "one entry per group"),
    (["overlap=2"], r"overlap must be in \[0, 1\], got 2"),
  )
  def test_what_cannot_be_turned_is_named(self, knobs, message):
    with self.assertRaisesRegex(ValueError, message):
      with_knobs(CrowdConfig(), knobs)


if __name__ == "__main__":
  absltest.main()
