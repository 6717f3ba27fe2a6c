"""Figures that guides and configs repeat are those of the results."""

import ast
import re

from absl.testing import absltest, parameterized

from jaxalign.algorithms import contrastive, metarm
from tests import checkout, shipped

RESULTS = "docs/results.md"
GUIDES = ("README.md", "docs/recipes.md", "docs/policy.md")
SPREAD = re.compile(r"([-+]?\d+\.\d+) ± (\d+\.\d+)")
# A config whose figures stand nowhere else.
ALONE = ("configs/sft_crowd.py",)

# What papers claim, from their tables and in the order of the docstrings.
CLAIMS = {
  "rm_more": (
    *("0.0541", "0.0364", "62.4", "63.3"),
    *("0.0456", "0.0366", "64.0", "64.0"),
  ),
  "rm_dprm": (
    *("30.0", "28.7", "24.2", "23.5"),
    *("28.3", "27.9", "24.7", "26.5"),
    *("37.6", "36.0", "33.9", "33.2"),
  ),
  "policy_maxmin_tulu2_7b": ("57.8", "55.6"),
  "policy_maxmin_gpt2_imdb": ("0.808", "0.848"),
}

# Knobs of the table in docs/policy.md, where the crowd's config has them.
KNOBS = {
  "`clip_eps`": ("policy.clip_eps",),
  "`clip_eps_high`": ("policy.clip_eps_high",),
  "`critic.clip`": ("critic.clip",),
  "`discount`, `gae_lambda`": ("critic.discount", "critic.gae_lambda"),
  "`critic.coef`": ("critic.coef",),
  "`whiten`": ("policy.whiten",),
  "`kl.place`, `estimator`, `coef`": ("kl.place", "kl.estimator", "kl.coef"),
  "`kl.controller`": ("kl.controller",),
  "`reward.scale`, `clip`": ("reward.scale", "reward.clip"),
  "`missing_eos`": ("reward.missing_eos",),
  "`epochs`, `minibatches`": ("policy.epochs", "policy.minibatches"),
  "`dual_clip`": ("policy.dual_clip",),
  "`critic_optimizer.learning_rate`": ("critic_optimizer.learning_rate",),
}


def text_of(name: str) -> str:
  """A page or a config's docstring, on one line, with ASCII signs."""
  text = (checkout.ROOT / name).read_text(encoding="utf-8")
  if name.endswith(".py"):
    text = ast.get_docstring(ast.parse(text)) or ""
  return " ".join(text.replace("−", "-").split())


def written(value: object) -> str:
  """A value as the guide writes it."""
  words = {None: "off", True: "on", False: "off"}
  if value is None or isinstance(value, bool):
    return words[value]
  return f"{value:g}" if isinstance(value, float) else str(value)


def spreads(text: str) -> list[tuple[str, str]]:
  return SPREAD.findall(text)


class FiguresTest(parameterized.TestCase):
  def test_what_is_repeated_is_in_the_results(self):
    known = [(abs(float(v)), float(s)) for v, s in spreads(text_of(RESULTS))]
    pages = [checkout.relative(path) for path in checkout.files("configs/*.py")]
    checked = 0
    for page in (*GUIDES, *pages):
      if page in ALONE:
        continue
      for value, spread in spreads(text_of(page)):
        # A page may round, and say "lower by" for a minus.
        places = [len(x.partition(".")[2]) for x in (value, spread)]
        found = any(
          (round(v, places[0]), round(s, places[1]))
          == (abs(float(value)), float(spread))
          for v, s in known
        )
        self.assertTrue(found, f"{page}: {value} ± {spread}")
        checked += 1
    self.assertGreater(checked, 60)

  def test_the_ensemble_finds_as_many_wrong_labels(self):
    (value,) = re.findall(r"AUC of (\d\.\d+)", text_of("docs/recipes.md"))
    (known,) = {*re.findall(r"AUC (\d\.\d+) ±", text_of(RESULTS))}
    self.assertEqual(round(float(known), 3), float(value))

  def test_what_was_not_run_was_not_measured(self):
    for page in GUIDES:
      text = (checkout.ROOT / page).read_text(encoding="utf-8")
      for paragraph in text.split("\n\n"):
        said = " ".join(paragraph.split())
        if "not yet run" not in said.lower():
          continue
        for name in re.findall(r"configs/(\w+)\.py", said):
          self.assertIn("not yet run", text_of(f"configs/{name}.py"), page)

  @parameterized.parameters(*sorted(CLAIMS))
  def test_claims_are_those_of_the_paper(self, name):
    said = text_of(f"configs/{name}.py")
    said = said[said.index("Claimed") : said.index("Measured")]
    claims = CLAIMS[name]
    found = re.findall(r"\d+\.\d+", said)
    self.assertEqual(tuple(found[: len(claims)]), claims)

  def test_defaults_of_a_policy_are_those_of_the_config(self):
    page = (checkout.ROOT / "docs/policy.md").read_text(encoding="utf-8")
    section = page[page.index("## Defaults and where they come from") :]
    section = section[: section.index("\n## ", 3)]
    rows = [line.split("|") for line in re.findall(r"^\|.*\|$", section, re.M)]
    table = {row[1].strip(): row[2].strip() for row in rows[2:]}
    self.assertEqual({*table}, {*KNOBS})
    crowd = shipped.config("policy_maxmin_crowd")
    for knob, places in KNOBS.items():
      values = []
      for place in places:
        section, key = place.split(".")
        values.append(written(crowd[section][key]))
      self.assertEqual(table[knob], ", ".join(values), knob)

  def test_defaults_of_recipes_are_those_of_the_code(self):
    page = text_of("docs/recipes.md")
    defaults = metarm.MetaRmConfig("metarm", ("f",))
    for name in ("num_responses", "num_prompts"):
      (value,) = re.findall(rf"`{name}` \((\d+)\)", page)
      self.assertEqual(int(value), defaults.__getattribute__(name), name)
    simcse = contrastive.ContrastiveConfig("contrastive")
    self.assertIn(f"β {simcse.weight}, τ {simcse.temperature}", page)
    swav = shipped.config("rm_contrastive_crowd", "swav").recipe
    for name in ("weight", "temperature", "num_prototypes", "queue_size"):
      self.assertRegex(page, rf'loss="swav".*\b{name}={swav[name]}\b')

  def test_the_table_of_papers_names_configs_variants_and_tests(self):
    page = (checkout.ROOT / "docs/recipes.md").read_text("utf-8")
    _, _, table = page.partition("| paper | element | config | test |\n|")
    rows = re.findall(r"^\| (\w.*) \|$", table.partition("\n\n")[0], re.M)
    self.assertGreater(len(rows), 15)
    for row in rows:
      _, _, configs, tests = row.split(" | ")
      files = re.findall(r"`([\w/]+_test\.py)`", tests)
      self.assertNotEmpty(files, row)
      for file in files:
        self.assertTrue((checkout.ROOT / "tests" / file).exists(), file)
      for name in re.findall(r"`(\w+)`", configs):
        path = checkout.ROOT / f"configs/{name}.py"
        self.assertTrue(path.exists() or name == "pooled", name)
      (first, *_) = re.findall(r"`(\w+)`", configs) or [None]
      for variant in re.findall(r"`:(\w+)`", configs):
        shipped.config(first, variant)


if __name__ == "__main__":
  absltest.main()
