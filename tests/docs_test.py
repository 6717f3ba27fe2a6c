"""Every Python block of the guides runs, and shows what its page says."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from jaxalign import losses
from jaxalign.data.records import record
from jaxalign.experiments.common import stage_help
from tests import checkout

SCRIPTS = [checkout.relative(path) for path in checkout.files("docs/draw_*.py")]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def run_blocks(page: str) -> dict:
  """Runs the Python blocks of a page in order, in one namespace.

  Args:
    page: file below docs/.

  Returns:
    The names they left behind.
  """
  text = (checkout.ROOT / "docs" / page).read_text(encoding="utf-8")
  names = {}
  for found in BLOCK.finditer(text):
    line = text.count("\n", 0, found.start()) + 1
    # Blank lines in front, so that an error has the page's line number.
    source = "\n" * line + found[1]
    exec(compile(source, f"docs/{page}", "exec"), names)  # noqa: S102
  return names


class PagesTest(parameterized.TestCase):
  def test_one_loss_has_one_gradient_in_all_kinds_of_code(self):
    names = run_blocks("importing.md")
    want = names["gradient"]
    close = lambda got, expected: np.testing.assert_allclose(
      got, expected, rtol=2e-5, atol=1e-6
    )
    for mode in ("pmap_gradient", "shard_gradient"):
      jax.tree.map(close, names[mode], want)
    close(names["nnx_gradient"]["hidden"]["kernel"][...], want["w"])
    close(names["nnx_gradient"]["out"]["kernel"][..., 0], want["v"])
    for loss in ("shard_loss", "nnx_step_loss"):
      close(names[loss], names["loss"])
    close(names["pmap_loss"], np.full(jax.device_count(), names["loss"]))

  def test_two_recipes_add_up_to_a_third(self):
    names = run_blocks("recipes.md")
    parts = [
      names["update"].make_gradient(one)(
        names["params"], names["batch"], one.carry
      )
      for one in (names["sources"], names["everyone"])
    ]
    jax.tree.map(
      lambda got, one, two: np.testing.assert_allclose(
        got, (one + two) / 2, rtol=2e-5, atol=1e-6
      ),
      names["found"].gradient,
      parts[0].gradient,
      parts[1].gradient,
    )

  def test_tunix_calls_it_with_the_model_and_keywords(self):
    # The three lines of its trainer that touch a loss function.
    names = run_blocks("importing.md")
    model = names["model"]  # after one step of the block above it
    inputs = names["model_inputs"](names["batch"])
    (loss, aux), gradient = nnx.value_and_grad(
      names["tunix_loss"], argnums=0, has_aux=True
    )(model, **inputs)
    names["optimizer"].update(model, gradient)
    self.assertLess(float(names["tunix_loss"](model, **inputs)[0]), float(loss))
    self.assertIn("margin", aux)

  def test_losses_page_runs(self):
    run_blocks("losses.md")

  def test_a_function_of_texts_is_a_reward_source(self):
    names = run_blocks("serving.md")
    self.assertEqual(names["rewards"].tolist(), [[-3.0], [-10.0]])

  def test_every_loss_is_on_the_page_and_in_its_table_of_breaks(self):
    text = (checkout.ROOT / "docs/losses.md").read_text(encoding="utf-8")
    prose, _, table = text.partition("## One line broken in each")
    public = [name for name in losses.__all__ if name.islower()]
    self.assertEmpty([n for n in public if f"`{n}`" not in prose])
    broken = re.findall(r"^\| `(\w+)` \|", table, re.M)
    self.assertCountEqual(broken, public)

  def test_the_tests_that_saw_a_break_exist(self):
    text = (checkout.ROOT / "docs/losses.md").read_text(encoding="utf-8")
    sources = "".join(
      path.read_text(encoding="utf-8")
      for path in checkout.files("tests/losses/*_test.py")
    )
    named = re.findall(r"`(test_\w+?)\d*` \|$", text, re.M)
    self.assertNotEmpty(named)
    self.assertEmpty([n for n in named if f"def {n}" not in sources])

  def test_pictures_exist_and_are_named_in_words(self):
    for page in checkout.files("docs/*.md"):
      text = page.read_text(encoding="utf-8")
      for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
        self.assertTrue((page.parent / target).exists(), f"{page}: {target}")
        self.assertGreater(len(words.split()), 3, f"{page}: {target}")

  def test_a_broken_block_is_noticed_with_its_line(self):
    with self.assertRaisesRegex(KeyError, "absent"):
      exec(compile("\n" * 3 + "{}['absent']", "docs/x.md", "exec"), {})  # noqa: S102


class RecordsTest(parameterized.TestCase):
  @parameterized.parameters(("README.md", 2), ("docs/data.md", 5))
  def test_example_records_can_be_read(self, page, number):
    text = (checkout.ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S)[0].split(
      "\n"
    )
    records = [
      record.parse_record(json.loads(line), where=page)
      for line in lines
      if line
    ]
    self.assertLen(records, number)


class PoliciesFigureTest(absltest.TestCase):
  def test_numbers_are_those_of_the_results(self):
    script = runpy.run_path(str(checkout.ROOT / "docs/draw_policies.py"))
    text = script["section"]()
    values, seeds = script["utilities"](text), script["shares"](text)
    self.assertEqual(values["start"]["minority"], (-0.91, 0.23))
    self.assertEqual(values["maxmin"]["majority"], (-0.17, 0.27))
    # Mean and deviation of the dots are those that the table states.
    for name, mean, spread in (("maxmin", 0.77, 0.12), ("single", -0.15, 0.31)):
      self.assertLen(seeds[name], 5)
      self.assertAlmostEqual(np.mean(seeds[name]), mean, delta=0.006)
      self.assertAlmostEqual(np.std(seeds[name], ddof=1), spread, delta=0.006)


class ScalingTest(absltest.TestCase):
  def test_the_table_is_that_of_the_cache(self):
    docs = checkout.ROOT / "docs"
    page = (docs / "scaling.md").read_text(encoding="utf-8")
    entries = json.loads((docs / "scaling.json").read_text(encoding="utf-8"))
    script = runpy.run_path(str(docs / "tabulate_scaling.py"))
    self.assertEqual(script["filled"](page, entries), page)
    self.assertEqual(sum(e["involuntary"] for e in entries.values()), 0)
    rows = re.findall(r"^\| `([\w:,]+)`,?( \w+)? \| ([\w:]+)", page, re.M)
    self.assertEqual(
      {f"{config} {slice}{end}" for config, end, slice in rows}, {*entries}
    )


class ConfigTest(absltest.TestCase):
  def test_the_reference_is_that_of_the_dataclasses(self):
    script = runpy.run_path(str(checkout.ROOT / "docs/tabulate_config.py"))
    page = (checkout.ROOT / "docs/config.md").read_text(encoding="utf-8")
    self.assertEqual(script["page"](), page, script["__doc__"])
    table = stage_help.TABLE.read_text(encoding="utf-8")
    self.assertEqual(script["help_table"](), table, script["__doc__"])
    titles = re.findall(r"^### (.*)$", page, re.M)
    anchors = {title.lower().replace(".", "") for title in titles}
    links = set(re.findall(r"\(#([\w-]+)\)", page))
    self.assertLen(titles, len(anchors))
    self.assertGreater(len(links), 30)
    self.assertEmpty(links - anchors)


class DrawingTest(parameterized.TestCase):
  @parameterized.parameters(*SCRIPTS)
  def test_pictures_can_be_drawn_again(self, script):
    with tempfile.TemporaryDirectory() as folder:
      subprocess.run(
        [sys.executable, checkout.ROOT / script, folder],
        check=True,
        env=os.environ | {"PYTHONPATH": str(checkout.ROOT)},
        cwd=folder,
        capture_output=True,
      )
      drawn = set(os.listdir(folder))
    self.assertNotEmpty(drawn)
    kept = {p.name for p in (checkout.ROOT / "docs/images").iterdir()}
    self.assertEmpty(drawn - kept)


class FairnessTest(absltest.TestCase):
  def run_of(self, worst, share):
    """A pipeline's finding with one policy and two groups."""
    at = {"a": 1.0, "b": worst, "worst": worst}
    one = dict(at_equal_kl=at, end_kl=2.0, share=share)
    return dict(
      groups=["a", "b"], start={"a": 0.0, "b": -1.0}, policies={"max": one}
    )

  def script(self):
    return runpy.run_path(str(checkout.ROOT / "docs/tabulate_fairness.py"))

  def test_seeds_have_a_mean_and_a_spread(self):
    runs = [self.run_of(0.0, 0.5), self.run_of(0.2, 0.9)]
    *_, start, policy = self.script()["table"](runs)
    self.assertEqual(
      start, "| start | 0.00 ± 0.00 | -1.00 ± 0.00 | -1.00 ± 0.00 | – | 0 |"
    )
    self.assertEqual(
      policy,
      "| max | 1.00 ± 0.00 | 0.10 ± 0.14 | 0.10 ± 0.14 | 0.70 ± 0.28 "
      "| 2.00 ± 0.00 |",
    )

  def test_no_gain_has_no_share(self):
    *_, policy = self.script()["table"]([self.run_of(0.2, None)])
    self.assertIn("| undefined |", policy)

  def test_leads_are_paired_by_crowd(self):
    def run(*gains):
      each = lambda kl, by: {
        "kl": kl,
        "policies": {
          name: {"gain": by * gain, "mean_gain": by * gain / 2}
          for name, gain in zip(("max", "one"), gains, strict=True)
        },
      }
      return {"budgets": [each(1.0, 1.0), each(2.0, 2.0)]}

    runs = [run(0.5, 0.1), run(0.7, 0.5), run(0.3, 0.3)]
    runs[2]["budgets"].pop()  # one policy went no further
    lines = self.script()["paired"](runs, "max")
    self.assertEqual(lines[2], "| 1.0 | 3 | max | 0.50 ± 0.20 | – | – |")
    # 0.2 ± t(2 degrees) 0.2 / sqrt(3), t = 4.3027.
    self.assertEqual(
      lines[3], "| 1.0 | 3 | one | 0.30 ± 0.20 | 0.20 [-0.30, 0.70] | 2 |"
    )
    self.assertIn("| 2.0 | 2 | one | 0.60 ± 0.57 | 0.60 [", lines[5])
    self.assertIn("| mean up to 2.0 | 2 | one | 0.30 ± 0.28 | 0.30 [", lines[7])
    self.assertEqual(self.script()["paired"]([{"budgets": []}], "max"), [])

  def test_other_groups_are_not_averaged(self):
    other = self.run_of(0.0, 0.5) | {"groups": ["a", "c"]}
    with self.assertRaisesRegex(ValueError, r"groups \['a', 'b'\].*'c'"):
      self.script()["table"]([self.run_of(0.0, 0.5), other])


class ControllersTest(absltest.TestCase):
  def runs(self, *distances):
    """Runs of six iterations, of which the last two are looked at."""
    late = lambda kl: [
      {
        "step": step,
        "train/kl": 9.0 if step < 5 else kl,
        "train/kl_coef": 0.25,
        "train/worst_utility": -1.0,
      }
      for step in range(1, 7)
    ]
    return [late(kl) for kl in distances]

  def script(self):
    return runpy.run_path(str(checkout.ROOT / "docs/tabulate_kl.py"))

  def test_the_last_third_of_each_run_is_averaged(self):
    found = self.script()["table"](
      {"controller": self.runs(1.0, 2.0), "fixed": self.runs(3.0)}
    )
    self.assertEqual(
      found[2:],
      [
        "| controller | 2 | 1.50 ± 0.71 | 1.00, 2.00 | 0.25 ± 0.00 "
        "| -1.00 ± 0.00 |",
        "| fixed | 1 | 3.00 | 3.00 | 0.25 | -1.00 |",
      ],
    )

  def test_a_picture(self):
    path = pathlib.Path(tempfile.mkdtemp()) / "kl.png"
    self.script()["draw"]({"fixed": self.runs(3.0)}, 1.5, path)
    self.assertEqual(path.read_bytes()[1:4], b"PNG")


if __name__ == "__main__":
  absltest.main()
