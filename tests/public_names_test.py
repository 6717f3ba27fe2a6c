"""Every public name says what it takes and gives, with shapes."""

import dataclasses
import importlib
import inspect
import re
from typing import NamedTuple

import jax
import numpy as np
from absl.testing import absltest, parameterized

from tests import checkout

PACKAGES = sorted(
  path.parent.name
  for path in checkout.files("jaxalign/*/__init__.py")
  if path.parent.parent == checkout.LIBRARY
)
# Where a call is an equation: what has a default is named by its caller.
EQUATIONS = ("ops", "losses", "metrics")
SHAPE = re.compile(
  r"\[(\.\.\.|[A-Za-z0-9_+*/ ()-]+)(, ?[^\[\]]+)?\]|\bscalars?\b"
)


def section(doc: str, title: str) -> str:
  """The text under a heading such as `Args:`, or an empty string."""
  found = re.search(rf"^{title}:\n((?:[ \t]+.*\n|\n)*)", f"{doc}\n", re.M)
  return "" if found is None else found.group(1)


def _is_array(annotation: object) -> bool:
  return bool(re.search(r"\b(Array|ndarray)\b", str(annotation)))


def _described(text: str, name: str) -> bool:
  return bool(re.search(rf"(?<!\w){re.escape(name)}\b[^:\n]*:", text))


def function_faults(function, *, equation: bool = False) -> list[str]:
  """What the docstring of a function leaves unsaid.

  Args:
    function: any function.
    equation: whether what has a default must be keyword-only.

  Returns:
    One phrase per omission.
  """
  doc = inspect.getdoc(function) or ""
  signature = inspect.signature(function)
  arguments, returns = section(doc, "Args"), section(doc, "Returns")
  faults = []
  for name, parameter in signature.parameters.items():
    if not _described(arguments, name):
      faults.append(f"Args does not describe {name}")
    if (
      equation
      and parameter.default is not parameter.empty
      and parameter.kind is not parameter.KEYWORD_ONLY
    ):
      faults.append(f"{name} has a default, so it must be keyword-only")
  annotations = [
    parameter.annotation
    for name, parameter in signature.parameters.items()
    if name != "key"  # a key has no shape to speak of
  ]
  if any(map(_is_array, annotations)) and not SHAPE.search(arguments):
    faults.append("Args has no shape in brackets")
  gives = signature.return_annotation
  if gives in (None, "None", signature.empty):
    return faults
  if not returns:
    return [*faults, "no Returns"]
  # A NamedTuple says its shapes once, in its own docstring.
  documented = inspect.isclass(gives) and SHAPE.search(gives.__doc__ or "")
  if (
    (_is_array(gives) or _is_named_tuple(gives))
    and not documented
    and not SHAPE.search(returns)
  ):
    faults.append("Returns has no shape in brackets")
  return faults


def _is_named_tuple(kind: object) -> bool:
  """Whether a type is a NamedTuple."""
  return inspect.isclass(kind) and issubclass(kind, tuple)


def class_faults(kind: type) -> list[str]:
  """What the docstring of a class leaves unsaid, one phrase per omission."""
  doc = inspect.getdoc(kind) or ""
  # dataclass and NamedTuple invent a docstring out of the signature.
  if not doc or doc.startswith(f"{kind.__name__}("):
    return ["no docstring"]
  if dataclasses.is_dataclass(kind):
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
  elif _is_named_tuple(kind):
    fields = kind.__annotations__
  else:
    return []
  # Either in the docstring or in a comment beside the field.
  attributes = section(doc, "Attributes")
  source = inspect.getsource(kind)
  faults = [
    f"neither Attributes nor a comment describes {name}"
    for name in fields
    if not _described(attributes, name)
    and not re.search(rf"^ +{name}: .*  # \S", source, re.M)
  ]
  described = attributes + "".join(re.findall("  # .*\n", source))
  if any(map(_is_array, fields.values())) and not SHAPE.search(described):
    faults.append("Attributes has no shape in brackets")
  return faults


def faults(thing: object, *, equation: bool = False) -> list[str]:
  """What the docstring of a public name leaves unsaid."""
  if inspect.isclass(thing):
    return class_faults(thing)
  if callable(thing):
    return function_faults(thing, equation=equation)
  return []


class PublicNamesTest(parameterized.TestCase):
  @parameterized.parameters(*PACKAGES)
  def test_documented(self, package):
    module = importlib.import_module(f"jaxalign.{package}")
    names = module.__all__ if hasattr(module, "__all__") else ()
    found = []
    for name in names:
      thing = getattr(module, name)
      if not str(inspect.getmodule(thing)).startswith("<module 'jaxalign"):
        continue  # another library's, documented there
      for fault in faults(thing, equation=package in EQUATIONS):
        found.append(f"jaxalign.{package}.{name}: {fault}")
    self.assertEmpty(found, "\n" + "\n".join(found))

  @parameterized.parameters(*PACKAGES)
  def test_all_is_sorted_and_complete(self, package):
    module = importlib.import_module(f"jaxalign.{package}")
    visible = [
      name
      for name, thing in vars(module).items()
      if not name.startswith("_") and not inspect.ismodule(thing)
    ]
    listed = module.__all__ if hasattr(module, "__all__") else []
    self.assertEqual(list(listed), sorted(visible))


class _Documented(NamedTuple):
  """Two numbers.

  Attributes:
    mean: per row, [N].
    std: per row, [N].
  """

  mean: jax.Array
  std: jax.Array


class _Commented(NamedTuple):
  """Two numbers."""

  mean: jax.Array  # per row, [N]
  std: jax.Array  # per row, [N]


class _Undocumented(NamedTuple):
  """Two numbers.

  Attributes:
    mean: per row.
  """

  mean: jax.Array
  std: jax.Array


def _good(x: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
  """A mean.

  Args:
    x: float [..., T].
    where: bool, of x's shape.

  Returns:
    The mean, [...].
  """
  del where
  return x


def _good_tuple(x: np.ndarray) -> _Documented:
  """Two numbers.

  Args:
    x: float [N, T].

  Returns:
    Mean and spread per row.
  """
  return _Documented(x, x)


def _no_doc(x: jax.Array) -> jax.Array:
  return x


def _no_shapes(x: jax.Array) -> jax.Array:
  """A mean.

  Args:
    x: floats.

  Returns:
    The mean.
  """
  return x


def _positional_knob(x: jax.Array, beta: float = 0.1) -> jax.Array:
  """A mean.

  Args:
    x: float [N].
    beta: a knob.

  Returns:
    The mean, a scalar.
  """
  return x * beta


class RulesTest(parameterized.TestCase):
  @parameterized.parameters(_good, _good_tuple, _Documented, _Commented)
  def test_allows(self, thing):
    self.assertEmpty(faults(thing, equation=True))

  @parameterized.parameters(
    (_no_doc, ["Args does not describe x", "Args has no shape", "no Returns"]),
    (_no_shapes, ["Args has no shape", "Returns has no shape"]),
    (_positional_knob, ["beta has a default"]),
    (_Undocumented, ["nor a comment describes std", "Attributes has no shape"]),
  )
  def test_notices(self, thing, expected):
    found = faults(thing, equation=True)
    self.assertLen(found, len(expected))
    for fault, phrase in zip(found, expected, strict=True):
      self.assertIn(phrase, fault)


if __name__ == "__main__":
  absltest.main()
