"""A jaxalign.json that cannot be meant ends in one line with the file."""

import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.runtime.io import artifact

NAN, INFINITE = float("nan"), float("inf")
MIXTURE = {
  "format_version": 1,
  "kind": "reward",
  "heads": ["a", "b"],
  "max_length": 16,
  "calibration": {"mean": [0.0, 1.0], "std": [1.0, 2.0]},
  "utilities": None,
  "mixture_weights": [0.25, 0.75],
  "provenance": {"step": 3},
}
LABELS = MIXTURE | {
  "calibration": {"mean": [0.0], "std": [1.0]},
  "utilities": [0.0, 1.0],
  "mixture_weights": None,
  "readout": "labels",
  "label_cost": [[0.0, 1.0], [1.0, 0.0]],
}


class DescriptionFieldsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.file = self.folder / artifact.DESCRIPTION

  def load(self, content):
    if not isinstance(content, bytes):
      content = json.dumps(content).encode()
    self.file.write_bytes(content)
    return artifact.load_description(self.folder)

  @parameterized.parameters(MIXTURE, LABELS)
  def test_what_was_written_before_is_read(self, **content):
    described = self.load(content)
    self.assertEqual(described.heads, ("a", "b"))
    self.assertEqual(described.risk, "mean")

  @parameterized.parameters(
    (MIXTURE, dict(mixture_weights=[1.0]), "must hold 2 numbers .* got 1"),
    (MIXTURE, dict(mixture_weights=[0.5, NAN]), "shares in .0, 1., got"),
    (MIXTURE, dict(mixture_weights=[-0.5, 1.5]), "shares in .0, 1., got"),
    (MIXTURE, dict(mixture_weights={"a": 1}), "shares in .0, 1., got"),
    (
      MIXTURE,
      dict(calibration={"mean": [NAN, 0.0], "std": [1.0, 1.0]}),
      "calibration must be null or .*nan",
    ),
    (
      MIXTURE,
      dict(calibration={"mean": [0.0, 0.0], "std": [1.0, INFINITE]}),
      "calibration must be null or .*inf",
    ),
    (
      MIXTURE,
      dict(calibration={"mean": [0.0], "std": [1.0]}),
      "calibration must hold 2 numbers for the heads a, b, got 1",
    ),
    (MIXTURE, dict(calibration={"mean": [0.0, 1.0]}), "calibration must be"),
    (MIXTURE, dict(calibration=[0.0]), "calibration must be"),
    (LABELS, dict(utilities=[0.0]), "utilities must hold 2"),
    (LABELS, dict(utilities=["0", "1"]), "list of finite numbers"),
    (LABELS, dict(label_cost=[[0.0, 1.0]]), "label_cost must hold 2"),
    (LABELS, dict(label_cost=[[0.0], [1.0]]), "label_cost must hold 2"),
    (LABELS, dict(readout="mean_variance"), "utilities go with kind='labels'"),
    (MIXTURE, dict(risk="cvar"), "risk must be 'mean'"),
    (MIXTURE, dict(kind="pet"), "kind must be 'reward' or 'policy', got pet"),
    (MIXTURE, dict(heads="ab"), "heads must be a list of names, got ab"),
    (MIXTURE, dict(max_length="16"), "max_length must be an int >= 1"),
    (MIXTURE, dict(max_length=0), "max_length must be an int >= 1"),
    (MIXTURE, dict(provenance=None), "provenance must be an object"),
    (MIXTURE, dict(mixed_layers=[2]), "null or two or more layers in asc"),
    (MIXTURE, dict(mixed_layers=[2, 1]), "null or two or more layers in asc"),
    (MIXTURE, dict(mixed_layers="12"), "mixed_layers must be null or two"),
    (MIXTURE, dict(head_units=1), "head_units must be null or an int >= 2"),
    (MIXTURE, dict(head_units="64"), "head_units must be null or an int"),
    (MIXTURE, dict(head_activation=["tanh"]), "must be 'tanh' or 'gelu'"),
    (MIXTURE, dict(colour="red"), "unknown field colour; known are kind"),
  )
  def test_what_cannot_be_meant(self, content, changes, regex):
    with self.assertRaisesRegex(ValueError, f"^{self.file}: .*{regex}"):
      self.load(content | changes)

  def test_a_missing_field_is_named(self):
    for name in ("kind", "heads", "calibration", "provenance"):
      content = {k: v for k, v in MIXTURE.items() if k != name}
      with self.assertRaisesRegex(ValueError, f"{name} is missing"):
        self.load(content)

  @parameterized.parameters(b"", b'{"kind": "rew', b"[]", b"null", b"\xff")
  def test_a_damaged_file_is_one_line(self, content):
    with self.assertRaisesRegex(ValueError, f"^{self.file}: [^\n]*$"):
      self.load(content)

  def test_any_wrong_type_is_one_line(self):
    wrong = ([], {}, "x", -1, 1.5, True, None, NAN, [[]], [None], 10**400)
    for name in LABELS:
      for value in wrong:
        try:
          self.load(LABELS | {name: value})
        except ValueError as error:
          self.assertStartsWith(str(error), str(self.file), f"{name} {value}")


if __name__ == "__main__":
  absltest.main()
