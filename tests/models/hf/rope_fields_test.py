"""The rotation in config.json: what is written is read, in either place."""

from absl.testing import absltest, parameterized

from jaxalign.models import config as configs
from jaxalign.models.hf import rope_fields
from jaxalign.models.hf.family import Rope

NEOX = Rope("rotary_emb_base", "rotary_pct", 0.25)
LLAMA3 = configs.RopeScaling("llama3", 8.0, 1.0, 4.0, 64)


def rotary(**changes):
  return configs.DecoderConfig(
    vocab_size=8, num_layers=1, num_heads=1, embed_dim=8, mlp_dim=8, **changes
  )


class RopeFieldsTest(parameterized.TestCase):
  @parameterized.parameters(
    (Rope(), {}),
    (Rope(), dict(rope_theta=5e5, rope_scaling=LLAMA3)),
    (NEOX, dict(rotary_fraction=0.5)),
    (NEOX, dict(rope_scaling=configs.RopeScaling("linear", 2.0))),
    (Rope(), dict(rope_scaling=configs.RopeScaling("dynamic", 2.0))),
    (
      Rope(),
      dict(
        rope_scaling=configs.RopeScaling(
          "yarn",
          4.0,
          original_max_positions=64,
          beta_fast=16.0,
          attention_factor=1.2,
          truncate=False,
        )
      ),
    ),
  )
  def test_both_places_say_the_same(self, names, changes):
    config = rotary(**changes)
    written = rope_fields.write_rope(config, names)
    newer = {"rope_parameters": written["rope_parameters"]}
    older = {k: v for k, v in written.items() if k != "rope_parameters"}
    for theirs in (written, newer, older):
      read = rope_fields.read_rope(
        theirs, names, "config.json", max_positions=16
      )
      self.assertEqual(rotary(**read), config)

  def test_longrope_is_written_as_it_is_read(self):
    config = rotary(
      max_positions=128,
      rope_scaling=configs.RopeScaling(
        "longrope",
        4.0,
        original_max_positions=32,
        attention_factor=1.5,
        short_factor=(1.0, 2.0, 3.0, 4.0),
        long_factor=(5.0, 6.0, 7.0, 8.0),
      ),
    )
    beside = Rope(context="original_max_position_embeddings")
    for names in (Rope(), beside):
      written = rope_fields.write_rope(config, names)
      read = rope_fields.read_rope(
        written, names, "config.json", max_positions=128
      )
      self.assertEqual(rotary(max_positions=128, **read), config)

  def test_nothing_said_is_the_default_of_the_family(self):
    self.assertEqual(
      rope_fields.read_rope({}, Rope(), "config.json", max_positions=16),
      {"rope_theta": 10_000.0},
    )
    self.assertEqual(
      rope_fields.read_rope({}, NEOX, "config.json", max_positions=16)[
        "rotary_fraction"
      ],
      0.25,
    )

  def test_yarn_may_leave_out_what_has_a_default(self):
    theirs = {
      "rope_type": "yarn",
      "factor": 4.0,
      "original_max_position_embeddings": 64,
      "attention_factor": None,
    }
    read = rope_fields.read_rope(
      {"rope_scaling": theirs}, Rope(), "config.json", max_positions=16
    )
    expected = configs.RopeScaling("yarn", 4.0, original_max_positions=64)
    self.assertEqual(read["rope_scaling"], expected)
    theirs["odd"] = 1.0
    with self.assertRaisesRegex(ValueError, "may hold .*got .*'odd'"):
      rope_fields.read_rope(
        {"rope_scaling": theirs}, Rope(), "config.json", max_positions=16
      )

  def test_a_share_where_the_family_has_none_is_refused(self):
    theirs = {"rope_parameters": {"partial_rotary_factor": 0.5}}
    with self.assertRaisesRegex(ValueError, "partial_rotary_factor"):
      rope_fields.read_rope(theirs, Rope(), "config.json", max_positions=16)


if __name__ == "__main__":
  absltest.main()
