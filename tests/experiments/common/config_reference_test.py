"""What is said of config keys, and that something is said of every one."""

import dataclasses
import importlib
from typing import Literal

from absl.testing import absltest, parameterized

from jaxalign.experiments.common import config_reference, stage_help
from tests import checkout

STAGES = [
  path.stem
  for path in checkout.files("jaxalign/experiments/*.py")
  if path.parent == checkout.LIBRARY / "experiments"
  and "class Config" in path.read_text()
]


@dataclasses.dataclass(frozen=True)
class Base:
  """What is shared.

  Attributes:
    size: rows, >= 1.
    rate: per step; a line
      that goes on.

  Raises:
    ValueError: not an attribute.
  """

  size: int
  rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Part(Base):
  """A part.

  Attributes:
    rate: otherwise said.
    name: of the part, "a" or None.
  """

  name: str | None = "a"


@dataclasses.dataclass(frozen=True)
class Other:
  """Another part.

  Attributes:
    kind: which.
    pairs: of a name and a number.
  """

  kind: Literal["x", "y"]
  pairs: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Whole:
  """All of it.

  Attributes:
    part: the first.
    maybe: the second, or None.
  """

  part: Part
  maybe: Part | None = None


class ConfigReferenceTest(parameterized.TestCase):
  def test_a_field_means_what_its_own_class_or_the_one_above_says(self):
    self.assertEqual(
      config_reference.meanings(Part),
      {
        "size": "rows, >= 1.",
        "rate": "otherwise said.",
        "name": 'of the part, "a" or None.',
      },
    )
    self.assertEqual(
      config_reference.meanings(Base)["rate"], "per step; a line that goes on."
    )

  def test_keys(self):
    size, rate, name = config_reference.keys(Part)
    self.assertEqual(
      size, ("size", "int", stage_help.REQUIRED, "rows, >= 1", ())
    )
    self.assertEqual(rate[1:3], ("float", "0.5"))
    self.assertEqual(name[1:3], ("str | None", '"a"'))
    kind, pairs = config_reference.keys(Other)
    self.assertEqual(kind.type, "'x' | 'y'")
    self.assertEqual(pairs[1:3], ("tuple[tuple[str, int], ...]", "()"))
    part, maybe = config_reference.keys(Whole)
    self.assertEqual((part.default, part.sections), ("", (Part,)))
    self.assertEqual((maybe.default, maybe.sections), ("None", (Part,)))

  def test_help_text(self):
    said = config_reference.help_text(Whole)
    self.assertIn("\npart\n    the first\npart.size: int, required\n", said)
    self.assertIn("\nmaybe = None\n    the second, or None\nmaybe.size", said)
    self.assertTrue(all(len(line) <= 80 for line in said.splitlines()))

  @parameterized.parameters(*STAGES)
  def test_every_key_of_a_stage_has_a_meaning(self, stage):
    module = importlib.import_module(f"jaxalign.experiments.{stage}")
    said = config_reference.help_text(module.Config)
    self.assertGreater(said.count("\n    "), 4)

  def test_a_section_that_may_be_left_out_has_the_defaults_of_its_class(self):
    """Else the reference would say another default than there is."""
    kinds = [
      importlib.import_module(f"jaxalign.experiments.{stage}").Config
      for stage in STAGES
    ]
    checked = 0
    for kind in kinds:
      for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
          self.assertEqual(field.default, type(field.default)(), field.name)
          checked += 1
    self.assertGreater(checked, 15)


if __name__ == "__main__":
  absltest.main()
