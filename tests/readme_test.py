"""README and its kin: the code runs, the commands and the paths exist."""

import contextlib
import io
import re
import runpy
from unittest import mock

from absl.testing import absltest, parameterized

from tests import checkout

PAGES = [checkout.relative(path) for path in checkout.files("*.md")]


def blocks(text: str, language: str) -> list[str]:
  """The fenced blocks of one language."""
  return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def missing_paths(name: str, text: str) -> list[str]:
  """What a page names and the checkout lacks.

  Args:
    name: path of the page in the checkout.
    text: its content.

  Returns:
    Links, paths and stages that lead nowhere.
  """
  folder = (checkout.ROOT / name).parent
  missing = [
    target
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    if not (folder / target).exists()
  ]
  paths = re.findall(
    r"(?<![\w/.-])((?:jaxalign|configs|launch|tests|docs)/[\w./]*\w)", text
  )
  missing += [path for path in paths if not (checkout.ROOT / path).exists()]
  stages = re.findall(r"python -m jaxalign\.experiments\.(\w+)", text)
  missing += [
    f"the stage {stage}"
    for stage in stages
    if not (checkout.LIBRARY / f"experiments/{stage}.py").exists()
  ]
  return missing


class ReadmeTest(parameterized.TestCase):
  def test_first_example_prints_what_it_says(self):
    code = blocks((checkout.ROOT / "README.md").read_text(), "python")[0]
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    self.assertNotEmpty(promised)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      exec(code, {})
    self.assertEqual(out.getvalue().splitlines(), promised)

  def test_the_tree_has_every_folder(self):
    text = (checkout.ROOT / "README.md").read_text()
    folders = {
      checkout.relative(path.parent)
      for path in checkout.LIBRARY.glob("*/__init__.py")
    }
    folders |= {"configs", "launch", "notebooks", "tests"}
    self.assertEqual(
      set(re.findall(r"^([\w/]+)/  +\w", text, re.M)) - {"docs"}, folders
    )

  def test_links_can_be_made_absolute(self):
    with mock.patch("setuptools.setup") as setup:
      shown = runpy.run_path(str(checkout.ROOT / "setup.py"))["shown"]
    text = "![a](docs/a.png) [b](docs/b.md#c) [d](https://e.f) [g](#h)"
    self.assertEqual(shown(text, ""), text)
    self.assertEqual(
      shown(text, "https://x/y"),
      "![a](https://x/y/docs/a.png) [b](https://x/y/docs/b.md#c) "
      "[d](https://e.f) [g](#h)",
    )
    self.assertIn("# jaxalign", setup.call_args.kwargs["long_description"])

  @parameterized.product(name=PAGES)
  def test_every_path_and_stage_exists(self, name):
    text = (checkout.ROOT / name).read_text()
    self.assertEmpty(missing_paths(name, text))

  @parameterized.parameters(
    "see [the guide](docs/none.md)",
    "run `launch/none.sh`",
    "with --config=configs/none.py:smoke",
    "python -m jaxalign.experiments.none --workdir=runs/none",
  )
  def test_a_dead_path_is_noticed(self, text):
    self.assertNotEmpty(missing_paths("README.md", text))


if __name__ == "__main__":
  absltest.main()
