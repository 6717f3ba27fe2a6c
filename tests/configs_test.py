"""Every config: a question, its command, a measured answer, a smoke variant.

It imports nothing but ml_collections, and what it returns is exactly what its
stage reads: a key too many or too few fails here, not on a pod.
"""

import ast
import importlib
import re
import runpy

import ml_collections
from absl.testing import absltest, parameterized

from jaxalign.experiments.common import config as configuration
from tests import checkout

CONFIGS = [checkout.relative(path) for path in checkout.files("configs/*.py")]
COMMAND = re.compile(r"python -m jaxalign\.experiments\.(\w+)\b([^`]*)")


def text_faults(name: str, source: str) -> list[str]:
  """What a config file lacks, from its text alone.

  Args:
    name: path in the checkout, e.g. "configs/rm_bt_crowd.py".
    source: its text.

  Returns:
    One phrase per fault.
  """
  tree = ast.parse(source)
  doc = ast.get_docstring(tree) or ""
  faults = [
    f"line {line}: imports {module}"
    for line, module in checkout.imports(tree)
    if module.partition(".")[0] != "ml_collections"
  ]
  if "?" not in doc.partition("\n")[0]:
    faults.append("the first line of the docstring asks no question")
  command = COMMAND.search(doc)
  if command is None:
    faults.append("the docstring gives no command")
  elif f"--config={name}" not in command.group(2):
    faults.append("the command does not use this file")
  answer = re.search(r"^Measured\b.*", doc, re.M | re.S)
  if answer is None:
    faults.append("the docstring has no paragraph that begins with Measured")
  elif not re.search(r"\d|not yet run|docs/|is given", answer.group()):
    # A tool, such as scoring, measures what it is given.
    faults.append("Measured gives no number, nor says that it is not yet run")
  if any(isinstance(node, ast.FunctionDef) for node in tree.body[:-1]):
    faults.append("get_config is not its only function")
  return faults


def variant_faults(get_config) -> list[str]:
  """What is wrong with the variants of a config, one phrase per fault."""
  faults = []
  full, smoke = get_config(), get_config("smoke")
  if not isinstance(full, ml_collections.ConfigDict):
    faults.append("get_config gives no ConfigDict")
  if full != get_config("full"):
    faults.append("the default variant is not full")
  if full == smoke and "train" in full:
    faults.append("smoke is as large as full")
  if {*flat(full)} != {*flat(smoke)}:
    faults.append("smoke has other keys than full")
  try:
    get_config("other")
    faults.append("an unknown variant passes")
  except ValueError as error:
    if "'other'" not in str(error):
      faults.append("the error for an unknown variant does not name it")
  return faults


def flat(config, path: str = "") -> list[str]:
  """The dotted names of all leaves."""
  leaves = []
  for key in config:
    value = config[key]
    if isinstance(value, ml_collections.ConfigDict):
      leaves += flat(value, f"{path}{key}.")
    else:
      leaves.append(f"{path}{key}")
  return leaves


def stage_of(name: str):
  """The stage module that a config's docstring runs."""
  source = (checkout.ROOT / name).read_text()
  stage = COMMAND.search(ast.get_docstring(ast.parse(source))).group(1)
  return importlib.import_module(f"jaxalign.experiments.{stage}")


def get_config_of(name: str):
  return runpy.run_path(str(checkout.ROOT / name))["get_config"]


class ConfigsTest(parameterized.TestCase):
  @parameterized.product(name=CONFIGS)
  def test_text(self, name):
    source = (checkout.ROOT / name).read_text()
    self.assertEmpty(text_faults(name, source))

  @parameterized.product(name=CONFIGS)
  def test_variants(self, name):
    self.assertEmpty(variant_faults(get_config_of(name)))

  @parameterized.product(name=CONFIGS, variant=("full", "smoke"))
  def test_its_stage_reads_exactly_these_keys(self, name, variant):
    config = get_config_of(name)(variant)
    configuration.to_dataclass(stage_of(name).Config, config)


GOOD = '''r"""Does it?

  python -m jaxalign.experiments.train_reward \\
      --config=configs/a.py --workdir=runs/a

Measured: 0.71 ± 0.01 over 3 seeds.
"""
import ml_collections


def get_config(variant="full"):
  if variant not in ("full", "smoke"):
    raise ValueError(f"got {variant!r}")
  steps = 20 if variant == "smoke" else 100
  return ml_collections.ConfigDict({"train": {"num_steps": steps}})
'''


class RulesTest(parameterized.TestCase):
  def test_allows(self):
    self.assertEmpty(text_faults("configs/a.py", GOOD))
    space = {}
    exec(GOOD, space)
    self.assertEmpty(variant_faults(space["get_config"]))

  @parameterized.parameters(
    ("Does it?", "It does.", "asks no question"),
    ("python -m jaxalign.experiments.train_reward", "run", "no command"),
    ("configs/a.py", "configs/b.py", "does not use this file"),
    ("Measured:", "Result:", "begins with Measured"),
    ("0.71 ± 0.01 over 3 seeds", "well", "no number"),
    ("import ml_c", "import jaxalign\nimport ml_c", "imports jaxalign"),
    ("def get", "def helper(): ...\ndef get", "only function"),
  )
  def test_notices_text(self, old, new, phrase):
    found = text_faults("configs/a.py", GOOD.replace(old, new))
    self.assertLen(found, 1)
    self.assertIn(phrase, found[0])

  @parameterized.parameters(
    ('variant="full"', 'variant="smoke"', "default variant"),
    ("20 if", "100 if", "as large as full"),
    ('"num_steps"', 'f"{steps}"', "other keys"),
    ("{variant!r}", "that", "does not name it"),
    ('    raise ValueError(f"got {variant!r}")', "    pass", "passes"),
  )
  def test_notices_variants(self, old, new, phrase):
    space = {}
    exec(GOOD.replace(old, new), space)
    found = variant_faults(space["get_config"])
    self.assertIn(phrase, " ".join(found))


if __name__ == "__main__":
  absltest.main()
