"""DecoderConfig: hashable, complete, and strict about every field."""

import dataclasses

import jax
from absl.testing import absltest, parameterized

from jaxalign.models import config as configs

GOOD = configs.DecoderConfig(
  vocab_size=32, num_layers=3, num_heads=4, embed_dim=16, mlp_dim=24
)


class DecoderConfigTest(parameterized.TestCase):
  def test_derived_fields_and_hash(self):
    self.assertEqual((GOOD.num_kv_heads, GOOD.head_dim), (4, 4))
    again = dataclasses.replace(GOOD, num_kv_heads=None, head_dim=None)
    self.assertEqual(hash(again), hash(GOOD))
    self.assertEqual(again, GOOD)

  @parameterized.parameters(
    (dict(vocab_size=0), ValueError, "vocab_size must be >= 1, got 0"),
    (dict(num_layers=2.0), TypeError, "num_layers must be an int, got 2.0"),
    (dict(num_heads=True), TypeError, "num_heads must be an int, got True"),
    (dict(num_outputs=0), ValueError, "num_outputs must be >= 1"),
    (dict(gated=1), TypeError, "gated must be a bool, got 1"),
    (dict(dropout="0"), TypeError, "dropout must be a number, got '0'"),
    (dict(dropout=1.0), ValueError, r"dropout must be in \[0, 1\), got 1.0"),
    (dict(norm_eps=0.0), ValueError, "norm_eps must be > 0"),
    (dict(rope_theta=float("nan")), ValueError, "rope_theta must be > 0"),
    (dict(norm="batch"), ValueError, "norm must be one of layer, rms"),
    (dict(activation="tanh"), ValueError, "activation must be one of .*tanh"),
    (dict(positions="alibi"), ValueError, "positions must be one of"),
    (dict(attention="flash"), ValueError, "attention must be one of dense, f"),
    (dict(remat="half"), ValueError, "remat must be one of dots, full, none"),
    (dict(dtype="int8"), ValueError, "dtype must be one of bfloat16"),
    (dict(param_dtype="bfloat16"), ValueError, "param_dtype must be one of"),
    (dict(unroll=4), ValueError, "unroll must be at most num_layers = 3"),
    (dict(num_kv_heads=3), ValueError, "multiple of num_kv_heads, got 4 and 3"),
    (dict(head_dim=3), ValueError, "must be even for rotary.* got 3"),
    (dict(rotary_fraction=0.2), ValueError, r"rotary .*got 4 \* 0.2"),
    (dict(rotary_fraction=0.0), ValueError, r"rotary_fraction .*\(0, 1\]"),
    (dict(sliding_window=0), ValueError, "sliding_window must be >= 1, got 0"),
    (dict(position_offset=-1), ValueError, "position_offset must be >= 0"),
    (dict(qk_norm=1), TypeError, "qk_norm must be a bool, got 1"),
    (dict(embed_dim=18, head_dim=None), ValueError, "embed_dim must be a mul"),
    (dict(pad_id=32), ValueError, r"pad_id must be in \[0, vocab_size\)"),
    (dict(eos_id=(1, 32)), ValueError, "eos_id must be in"),
    (
      dict(num_outputs=1, value_head=True),
      ValueError,
      "value_head belongs to a language model",
    ),
    (dict(num_values=2), ValueError, "num_values=2 needs value_head"),
    (dict(num_values=0), ValueError, "num_values must be >= 1, got 0"),
    (
      dict(mixed_layers=(1, 3)),
      ValueError,
      "mixed_layers belongs to a reward model",
    ),
    (
      dict(num_outputs=1, mixed_layers=(3,)),
      ValueError,
      r"two or more layers in ascending order, .* num_layers = 3, got \(3,\)",
    ),
    (dict(num_outputs=1, mixed_layers=(1, 2)), ValueError, "num_layers = 3"),
    (dict(num_outputs=1, mixed_layers=(0, 3)), ValueError, "from 1 on"),
    (dict(num_outputs=1, mixed_layers=(2, 1, 3)), ValueError, "ascending"),
    (dict(num_outputs=1, mixed_layers=[1, 3]), ValueError, "mixed_layers"),
    (dict(head_units=4), ValueError, "head_units belongs to a reward model"),
    (
      dict(num_outputs=1, head_units=1),
      ValueError,
      "head_units must be None or >= 2, got 1",
    ),
    (
      dict(num_outputs=1, head_units=4, head_activation="relu"),
      ValueError,
      "head_activation must be one of gelu, tanh",
    ),
    (
      dict(num_outputs=1, head_activation="gelu"),
      ValueError,
      "head_activation is that of head_units",
    ),
  )
  def test_errors_name_field_got_and_allowed(self, changes, error, regex):
    with self.assertRaisesRegex(error, regex):
      dataclasses.replace(GOOD, **changes)

  @parameterized.parameters(
    (dict(kind="ntk"), "kind must be one of dynamic, linear, llama3, longrope"),
    (
      dict(kind="longrope"),
      "short_factor belongs to kind 'longrope', got None",
    ),
    (dict(long_factor=(1.0,)), "long_factor belongs to kind 'longrope'"),
    (
      dict(kind="longrope", short_factor=(1.0,), long_factor=(0.0,)),
      "long_factor must be numbers > 0",
    ),
    (dict(factor=0.5), "factor must be >= 1"),
    (dict(low_freq_factor=4.0), "low_freq_factor must be in"),
    (dict(original_max_positions=0), "original_max_positions must be >= 1"),
  )
  def test_rope_scaling_errors(self, changes, regex):
    good = configs.RopeScaling("linear", 2.0)
    with self.assertRaisesRegex(ValueError, regex):
      dataclasses.replace(good, **changes)

  def test_float64_is_not_narrowed_in_silence(self):
    with self.assertRaisesRegex(ValueError, "dtype='float64' needs .*x64"):
      configs.available_dtype("dtype", "float64")
    with jax.enable_x64(True):
      self.assertEqual(configs.available_dtype("dtype", "float64").itemsize, 8)


if __name__ == "__main__":
  absltest.main()
