"""Every config: a question, its command, a measured answer, a smoke variant.

It imports nothing but ml_collections and says only what differs from the
defaults of its stage. A key that the stage does not have, or one without a
default that is left out, fails here and not on a pod.
"""

import ast
import re
import runpy

import ml_collections
from absl.testing import absltest, parameterized

from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import shipped_configs
from tests import checkout, shipped

ALL = [checkout.relative(path) for path in checkout.files("configs/*.py")]
# Names of an earlier release, each of one size of another file.
ALIASES = {
  "configs/rm_dprm_llama_7b.py": "rm_dprm.py:llama_7b",
  "configs/rm_dprm_opt_2_7b.py": "rm_dprm.py:opt_2_7b",
  "configs/rm_dprm_opt_6_7b.py": "rm_dprm.py:opt_6_7b",
  "configs/rm_more_pythia_1_4b.py": "rm_more.py:pythia_1_4b",
  "configs/rm_more_pythia_2_8b.py": "rm_more.py:pythia_2_8b",
}
CONFIGS = [name for name in ALL if name not in ALIASES]

# Lines that set keys: of one config, of more than half of them, of all.
MOST, USUAL, IN_ALL = 40, 25, 1000


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
  command = shipped.COMMAND.search(doc)
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
  if len(key_lines(source)) > MOST:
    faults.append(f"more than {MOST} lines set keys: which are the defaults?")
  return faults


def key_lines(source: str) -> list[int]:
  """Numbers of the lines of a config on which a key gets its value.

  They hold `key=value` of a section, `cfg.section.key = value`, or the text
  "key=value" of a pipeline's step.
  """
  lines = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.keyword) and node.arg is not None:
      lines.add(node.value.lineno)
    elif isinstance(node, ast.Assign):
      if any(isinstance(target, ast.Attribute) for target in node.targets):
        lines.add(node.lineno)
    elif isinstance(node, ast.Constant) and re.match(
      r"[a-z][\w.]*=", str(node.value)
    ):
      lines.add(node.lineno)
  return sorted(lines)


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
  try:
    get_config("other")
    faults.append("an unknown variant passes")
  except ValueError as error:
    if "'other'" not in str(error):
      faults.append("the error for an unknown variant does not name it")
  return faults


def get_config_of(name: str):
  return runpy.run_path(str(checkout.ROOT / name))["get_config"]


def stem(name: str) -> str:
  return name.removeprefix("configs/").removesuffix(".py")


class ConfigsTest(parameterized.TestCase):
  @parameterized.product(name=CONFIGS)
  def test_text(self, name):
    source = (checkout.ROOT / name).read_text()
    self.assertEmpty(text_faults(name, source))

  @parameterized.product(name=CONFIGS)
  def test_variants(self, name):
    self.assertEmpty(variant_faults(get_config_of(name)))

  @parameterized.product(name=CONFIGS)
  def test_its_stage_reads_every_variant(self, name):
    get_config, kind = get_config_of(name), shipped.stage_of(stem(name)).Config
    variants = shipped_configs.variants(checkout.ROOT / name)
    self.assertContainsSubset(("full", "smoke"), variants)
    for variant in variants:
      with self.subTest(variant=variant):
        made = configuration.to_dataclass(kind, get_config(variant))
        # Defaults are filled in before overrides are parsed, or after.
        whole = configuration.completed(kind, get_config(variant))
        self.assertEqual(configuration.to_dataclass(kind, whole), made)

  @parameterized.parameters(*ALIASES.items())
  def test_an_alias_has_the_variants_of_its_size(self, name, same):
    family, _, size = same.partition(":")
    get_config = get_config_of(f"configs/{family}")
    alias = get_config_of(name)
    self.assertIn(f"configs/{same};", (checkout.ROOT / name).read_text())
    self.assertEqual(alias(), get_config(size))
    for variant in ("full", "shape", "smoke"):
      self.assertEqual(alias(variant), get_config(f"{size},{variant}"))
    with self.assertRaisesRegex(ValueError, "other"):
      alias("other")
    self.assertEqual(
      shipped.stage_of(stem(name)).__name__.split(".")[-1], STAGE
    )

  def test_few_lines_set_keys(self):
    counts = [
      len(key_lines((checkout.ROOT / name).read_text())) for name in CONFIGS
    ]
    self.assertLessEqual(sum(counts), IN_ALL)
    usual = sum(count <= USUAL for count in counts)
    self.assertGreater(usual, len(counts) / 2)


STAGE = "train_reward"  # of all aliases

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
    ("  steps", "  a = dict(" + "\n a=1," * 41 + ")\n  steps", "set keys"),
  )
  def test_notices_text(self, old, new, phrase):
    found = text_faults("configs/a.py", GOOD.replace(old, new))
    self.assertLen(found, 1)
    self.assertIn(phrase, found[0])

  @parameterized.parameters(
    ('variant="full"', 'variant="smoke"', "default variant"),
    ("20 if", "100 if", "as large as full"),
    ("{variant!r}", "that", "does not name it"),
    ('    raise ValueError(f"got {variant!r}")', "    pass", "passes"),
  )
  def test_notices_variants(self, old, new, phrase):
    space = {}
    exec(GOOD.replace(old, new), space)
    found = variant_faults(space["get_config"])
    self.assertIn(phrase, " ".join(found))

  def test_key_lines(self):
    source = """cfg.data = dict(
  a=1, b=2,
  c=("x",
     "y"),
)
cfg.data.d = 1
none = None
changes = ("train.num_steps=3", "e=1")
cfg.data.update(f=1)
name = f"data.g={none}"
"""
    self.assertEqual(key_lines(source), [1, 2, 3, 6, 8, 9, 10])


if __name__ == "__main__":
  absltest.main()
