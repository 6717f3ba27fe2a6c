"""A config becomes dataclasses, or an error that names the key."""

import dataclasses
import json
import tempfile
from typing import Literal

import ml_collections
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments.common import config as configuration


@dataclasses.dataclass(frozen=True)
class Inner:
  size: int
  rate: float
  name: str | None

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f"size must be >= 1, got {self.size}")


@dataclasses.dataclass(frozen=True)
class Outer:
  files: tuple[str, ...]
  rules: tuple[tuple[str, str | None], ...]
  inner: Inner
  again: Inner | None
  flag: bool
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
  rate: float = 1
  name: str | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
  part: Part
  other: Part = Part(rate=2)


@dataclasses.dataclass(frozen=True)
class Sized:
  size: int


@dataclasses.dataclass(frozen=True)
class Nested:
  inner: Sized
  again: Sized | None = None


def config(**changes):
  base = {
    "files": ("a", "b"),
    "rules": (("mlp", None),),
    "inner": {"size": 3, "rate": 1, "name": None},
    "again": None,
    "flag": True,
  }
  return ml_collections.ConfigDict(base | changes)


@dataclasses.dataclass(frozen=True)
class Plain:
  name: Literal["plain"]


@dataclasses.dataclass(frozen=True)
class Rich:
  name: Literal["rich", "richer"]
  wealth: int = 3


@dataclasses.dataclass(frozen=True)
class Chosen:
  kind: Plain | Rich


class NamedTest(parameterized.TestCase):
  def test_the_name_picks_the_dataclass(self):
    for value, expected in (
      ({"name": "plain"}, Plain("plain")),
      ({"name": "richer", "wealth": 4}, Rich("richer", 4)),
    ):
      made = configuration.to_dataclass(Chosen, {"kind": value})
      self.assertEqual(made.kind, expected)

  @parameterized.parameters(
    ({"name": "poor"}, ValueError, "must be one of 'plain', 'rich', 'richer'"),
    ({"wealth": 3}, ValueError, "missing key config.kind.name"),
    ("plain", TypeError, "config.kind must be a mapping, got 'plain'"),
    ({"name": "plain", "wealth": 3}, ValueError, "wealth; config.kind takes n"),
  )
  def test_refuses(self, value, error, message):
    with self.assertRaisesRegex(error, message):
      configuration.to_dataclass(Chosen, {"kind": value})

  def test_a_literal_takes_its_values_alone(self):
    with self.assertRaisesRegex(ValueError, "config.name must be one of 'plai"):
      configuration.to_dataclass(Plain, {"name": "rich"})


class ToDataclassTest(parameterized.TestCase):
  def test_nests_and_converts(self):
    made = configuration.to_dataclass(Outer, config())
    self.assertEqual(made.inner, Inner(3, 1.0, None))
    self.assertIsInstance(made.inner.rate, float)
    self.assertEqual(made.rules, (("mlp", None),))
    self.assertEqual((made.again, made.seed), (None, 0))
    hash(made)

  @parameterized.parameters(
    ({"sead": 1}, ValueError, r"unknown key config.sead; did you mean seed\?"),
    ({"q": 1}, ValueError, "key config.q; config takes again, files, flag"),
    ({"inner": {"size": 3, "rate": 1.0}}, ValueError, "missing key config.inn"),
    ({"seed": 1.5}, TypeError, "config.seed must be int, got float 1.5"),
    ({"seed": True}, TypeError, "config.seed must be int, got bool"),
    ({"flag": 1}, TypeError, "config.flag must be bool, got int"),
    ({"files": "a"}, TypeError, "config.files must be a tuple, got 'a'"),
    ({"files": ("a", 2)}, TypeError, r"config.files\[1\] must be str"),
    ({"rules": (("a",),)}, TypeError, r"config.rules\[0\] must have 2 entries"),
    ({"inner": 3}, TypeError, "config.inner must be a mapping, got 3"),
    (
      {"inner": {"size": 0, "rate": 1.0, "name": None}},
      ValueError,
      "config.inner: size must be >= 1, got 0",
    ),
  )
  def test_errors_name_the_key(self, changes, kind, message):
    with self.assertRaisesRegex(kind, message):
      configuration.to_dataclass(Outer, config(**changes))

  @parameterized.parameters(
    # A section left out, one mistyped, and the names that others give.
    ({"rate": 1.0}, "unknown key config.rate; did you mean inner.rate"),
    ({"fils": ()}, r"did you mean files\?"),
    ({"inner": {"sise": 1}}, r"config.inner.sise; did you mean inner.size"),
    ({"sr": 0.1}, r"did you mean inner.step_rate or again.step_rate\?"),
    ({"q": 1, "seeed": 2}, r"mean seed\?; unknown key config.q; config takes"),
  )
  def test_an_unknown_key_brings_the_nearest_names(self, changes, message):
    @dataclasses.dataclass(frozen=True)
    class Stepped(Inner):
      step_rate: float = 0.1

    @dataclasses.dataclass(frozen=True)
    class Nested(Outer):
      inner: Stepped
      again: Stepped | None

    with self.assertRaisesRegex(ValueError, message):
      configuration.to_dataclass(Nested, config(**changes))

  def test_missing_keys_come_all_at_once(self):
    given = config(inner={"name": None})
    del given.files
    with self.assertRaisesRegex(
      ValueError,
      "missing keys config.files, config.inner.size, config.inner.rate$",
    ):
      configuration.to_dataclass(Outer, given)

  def test_sections_in_a_tuple_are_checked_as_well(self):
    @dataclasses.dataclass(frozen=True)
    class Many:
      parts: tuple[Inner, ...]

    whole = {"size": 3, "rate": 1.0, "name": None}
    made = configuration.to_dataclass(Many, {"parts": (whole,)})
    self.assertEqual(made.parts[0].size, 3)
    with self.assertRaisesRegex(
      ValueError, r"key config.parts\[1\].seize; did"
    ):
      configuration.to_dataclass(Many, {"parts": (whole, whole | {"seize": 1})})

  def test_a_section_left_out_is_made_of_its_own_defaults(self):
    made = configuration.to_dataclass(Whole, {})
    self.assertEqual(made, Whole(Part(), Part(rate=2)))
    with self.assertRaisesRegex(ValueError, "^missing key config.inner.size$"):
      configuration.to_dataclass(Nested, {"again": {"size": 1}})

  def test_completed_opens_each_key_to_its_own_type(self):
    given = {"part": {"name": "a"}, "other": {"sise": 1}}
    made = configuration.completed(Whole, given)
    self.assertEqual(made.part.to_dict(), {"rate": 1.0, "name": "a"})
    self.assertEqual((made.other.rate, made.other.sise), (1.0, 1))
    for section in (made.part, made.other):
      section.name = None
      self.assertIs(section.get_type("name"), str)
      self.assertIs(section.get_type("rate"), float)
    # Nothing is made up for keys without a default.
    self.assertEqual(configuration.completed(Nested, {}).to_dict()["inner"], {})

  def test_completed_takes_the_defaults_that_the_name_picks(self):
    for value, expected in (
      ({"name": "rich"}, {"name": "rich", "wealth": 3}),
      ({"name": "plain"}, {"name": "plain"}),
      ({"name": "poor"}, {"name": "poor"}),
    ):
      made = configuration.completed(Chosen, {"kind": value})
      self.assertEqual(made.kind.to_dict(), expected)

  def test_none_on_the_command_line_unsets_a_text(self):
    inner = {"size": 3, "rate": 1, "name": "None"}
    made = configuration.to_dataclass(Outer, config(inner=inner))
    self.assertIsNone(made.inner.name)
    made = configuration.to_dataclass(Outer, config(files=("None",)))
    self.assertEqual(made.files, ("None",))

  def test_json_is_written_whole(self):
    path = epath.Path(tempfile.mkdtemp()) / "config.json"
    made = configuration.to_dataclass(Outer, config())
    configuration.write_json(path, dataclasses.asdict(made))
    self.assertEqual(json.loads(path.read_text())["inner"]["size"], 3)
    self.assertLen(list(path.parent.iterdir()), 1)

  def test_what_is_no_number_is_null(self):
    path = epath.Path(tempfile.mkdtemp()) / "eval.json"
    content = {"a": float("nan"), "b": [(1.5, -float("inf"))], "c": {"d": 2}}
    configuration.write_json(path, content)
    self.assertEqual(
      json.loads(path.read_text()),
      {"a": None, "b": [[1.5, None]], "c": {"d": 2}},
    )


if __name__ == "__main__":
  absltest.main()
