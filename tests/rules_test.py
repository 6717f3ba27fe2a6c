"""Habits that the library has none of, by syntax tree and without exception.

Each rule is a function of a node that is true where the node breaks it; the
same test shows on a bad snippet that the rule can fail.
"""

import ast

from absl.testing import absltest, parameterized

from tests import checkout

MAX_FUNCTION_LINES = 150
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _names(node: ast.AST, name: str) -> bool:
  """Whether a node is a use or an import of `name`."""
  match node:
    case ast.Name(id=found) | ast.Attribute(attr=found):
      return found == name
    case ast.alias(name=found):
      return found.rpartition(".")[2] == name
  return False


def _calls(node: ast.AST, name: str) -> bool:
  return isinstance(node, ast.Call) and _names(node.func, name)


def _is_builtin(node: ast.AST, name: str) -> bool:
  """Whether a node is the builtin, not a method of the same name."""
  return isinstance(node, ast.Name) and node.id == name


def _mentions_import_error(node: ast.AST) -> bool:
  return any(
    _names(part, "ImportError") or _names(part, "ModuleNotFoundError")
    for part in ast.walk(node)
  )


def assert_statement(node: ast.AST) -> bool:
  """It disappears under -O: raise ValueError or TypeError."""
  return isinstance(node, ast.Assert)


def print_call(node: ast.AST) -> bool:
  """Log in experiments, return elsewhere."""
  return isinstance(node, ast.Call) and _is_builtin(node.func, "print")


def custom_vjp(node: ast.AST) -> bool:
  """It ends forward mode: use custom_jvp."""
  return _names(node, "custom_vjp")


def getattr_with_default(node: ast.AST) -> bool:
  """It hides a missing field."""
  return (
    isinstance(node, ast.Call)
    and _is_builtin(node.func, "getattr")
    and len(node.args) > 2
  )


def dynamic_import(node: ast.AST) -> bool:
  """The floors cannot see it."""
  return _calls(node, "__import__") or _calls(node, "import_module")


def bare_except(node: ast.AST) -> bool:
  """It catches a keyboard interrupt."""
  return isinstance(node, ast.ExceptHandler) and node.type is None


def hidden_import_error(node: ast.AST) -> bool:
  """It hides a broken installation: raise, and say which extra is missing."""
  if isinstance(node, ast.ExceptHandler) and node.type is not None:
    raises = any(isinstance(part, ast.Raise) for part in ast.walk(node))
    return _mentions_import_error(node.type) and not raises
  return _calls(node, "suppress") and _mentions_import_error(node)


def pmap(node: ast.AST) -> bool:
  """It lives in runtime/distributed/mesh.py."""
  if isinstance(node, ast.Attribute):
    return node.attr == "pmap" and _names(node.value, "jax")
  return isinstance(node, ast.alias) and _names(node, "pmap")


def stub(node: ast.AST) -> bool:
  """A function without a statement, Protocols and overloads excepted."""
  return isinstance(node, Function) and all(
    isinstance(line, ast.Pass)
    or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
    for line in node.body
  )


def not_implemented(node: ast.AST) -> bool:
  """What is refused raises ValueError with the reason."""
  return _names(node, "NotImplementedError")


def missing_annotation(node: ast.AST) -> bool:
  """Every argument and every return says its type."""
  if not isinstance(node, Function):
    return False
  a = node.args
  named = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
  unsaid = [
    arg.arg
    for arg in named
    if arg is not None and arg.annotation is None
    if arg.arg not in ("self", "cls")
  ]
  # An __init__ with annotated arguments returns None, as mypy knows.
  returns = node.returns is not None or node.name == "__init__"
  return bool(unsaid) or not returns


def positional_only(node: ast.AST) -> bool:
  """Arguments have names."""
  return isinstance(node, Function) and bool(node.args.posonlyargs)


def long_function(node: ast.AST) -> bool:
  """40 lines are normal, 60 are a question, loops may reach 150."""
  return (
    isinstance(node, Function)
    and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
  )


RULES = (
  assert_statement,
  bare_except,
  custom_vjp,
  dynamic_import,
  getattr_with_default,
  hidden_import_error,
  long_function,
  missing_annotation,
  not_implemented,
  pmap,
  positional_only,
  print_call,
  stub,
)
# The one file where a rule does not hold.
HOMES = {"runtime/distributed/mesh.py": pmap}


def _empty_by_design(tree: ast.AST) -> set[ast.AST]:
  """Methods of a Protocol, overloads, and methods that document a no-op."""
  empty = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.ClassDef):
      protocol = any(_names(base, "Protocol") for base in node.bases)
      empty.update(
        part
        for part in node.body
        if protocol or (isinstance(part, Function) and _explained_no_op(part))
      )
    if isinstance(node, Function) and any(
      _names(mark, "overload") for mark in node.decorator_list
    ):
      empty.add(node)
  return empty


def _explained_no_op(node: Function) -> bool:
  """Whether a method promises None and its docstring is all it holds."""
  return (
    len(node.body) == 1
    and ast.get_docstring(node) is not None
    and node.returns is not None
    and ast.unparse(node.returns) == "None"
  )


def broken(path: str, source: str, rules=RULES) -> list[str]:
  """Where one file of the library breaks which rules.

  Args:
    path: below jaxalign/.
    source: its text.
    rules: the rules to apply.

  Returns:
    One line per place.
  """
  tree = ast.parse(source)
  empty = _empty_by_design(tree)
  return [
    f"jaxalign/{path}:{node.lineno}: {rule.__name__}: {rule.__doc__}"
    for node in ast.walk(tree)
    for rule in rules
    if rule(node)
    and HOMES.get(path) is not rule
    and not (rule is stub and node in empty)
  ]


class LibraryTest(parameterized.TestCase):
  @parameterized.parameters(*RULES)
  def test_rule_holds(self, rule):
    found = []
    for path in checkout.library_files():
      name = path.relative_to(checkout.LIBRARY).as_posix()
      found += broken(name, path.read_text(), (rule,))
    self.assertEmpty(found, "\n" + "\n".join(found))

  @parameterized.parameters(
    (assert_statement, "assert x.shape == y.shape"),
    (print_call, "def f() -> None:\n  print('step')"),
    (custom_vjp, "@jax.custom_vjp\ndef f(x): return x"),
    (custom_vjp, "from jax import custom_vjp"),
    (getattr_with_default, "kl = getattr(config, 'kl_coef', 0.0)"),
    (dynamic_import, "importlib.import_module('flax')"),
    (bare_except, "try:\n  f()\nexcept:\n  raise"),
    (hidden_import_error, "with suppress(ImportError):\n  import torch"),
    (
      hidden_import_error,
      "try:\n  import torch\nexcept (OSError, ImportError):\n  torch = None",
    ),
    (pmap, "step = jax.pmap(update)"),
    (pmap, "from jax import pmap"),
    (stub, 'def f(x):\n  """Later."""\n  pass'),
    (stub, "class A:\n  def f(self): ..."),
    (stub, 'def f() -> None:\n  """Trains."""'),
    (stub, 'class A:\n  def f(self) -> int:\n    """The count."""'),
    (not_implemented, "def f() -> int:\n  raise NotImplementedError"),
    (missing_annotation, "def f(x, *, y: int) -> int: return x"),
    (missing_annotation, "def f(self): return 1"),
    (positional_only, "def f(x: int, /) -> int: return x"),
    (long_function, "def f() -> None:\n" + "  x = 1\n" * 150),
  )
  def test_rule_can_fail(self, rule, source):
    self.assertNotEmpty(broken("losses/a.py", source, (rule,)))

  @parameterized.parameters(
    ("losses/a.py", "x = getattr(module, name)"),
    ("runtime/a.py", "console.print(table)"),
    ("runtime/a.py", 'class A:\n  def f(self) -> None:\n    """No folders."""'),
    ("runtime/a.py", "pmap = parallel == 'pmap'"),
    ("runtime/distributed/mesh.py", "step = jax.pmap(update)"),
    ("ops/a.py", "class A(Protocol):\n  def f(self) -> int: ..."),
    ("ops/a.py", "@jax.custom_jvp\ndef f(x: int) -> int:\n  return x"),
    (
      "runtime/a.py",
      "try:\n  import x\nexcept ImportError as e:\n  raise ValueError from e",
    ),
  )
  def test_rules_leave_alone(self, path, source):
    self.assertEmpty(broken(path, source))


if __name__ == "__main__":
  absltest.main()
