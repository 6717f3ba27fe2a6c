"""The documentation site: complete, and built without a warning."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest

from tests import checkout

DOCS = checkout.ROOT / "docs"
ENTRY = re.compile(r"^```\{toctree\}\n((?:.*\n)*?)```$", re.M)


def listed(index: str) -> list[str]:
  """The pages of all menus of the first page."""
  return [
    line
    for menu in ENTRY.findall(index)
    for line in menu.split("\n")
    if line and not line.startswith(":")
  ]


class MenuTest(absltest.TestCase):
  def test_every_page_is_in_the_menu_once(self):
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    menu = listed((DOCS / "index.md").read_text(encoding="utf-8"))
    self.assertCountEqual(menu, pages)


class SiteTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    if importlib.util.find_spec("sphinx") is None:
      self.skipTest("sphinx is not installed: the extra docs")
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def build(self, source, *options):
    return subprocess.run(
      [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet"]
      + [*options, source, self.folder / "site"],
      cwd=checkout.ROOT,
      capture_output=True,
      text=True,
    )

  @pytest.mark.slow
  def test_it_is_built_without_a_warning(self):
    done = self.build(DOCS)
    self.assertEqual(done.returncode, 0, done.stderr)
    read = lambda name: (self.folder / "site" / name).read_text("utf-8")
    self.assertIn("reward per", read("index.html"))
    self.assertIn('href="results.html#from-pairs-to', read("index.html"))
    for name in ("losses.bradley_terry_loss", "ops.Sinkhorn", "models.Model"):
      self.assertIn(f'id="jaxalign.{name}"', read("api.html"))
    self.assertNotIn("Alias for field", read("api.html"))
    self.assertIn("l = min_P ⟨P, C⟩ + ε KL(P‖p⊗t)", read("api.html"))

  @pytest.mark.slow
  def test_a_dead_link_fails(self):
    pages = self.folder / "pages"
    pages.mkdir()
    (pages / "end.md").write_text("# End\n\n## Last\n")
    for link, said in (
      ("end.md#last", ""),
      ("end.md#one", "one"),
      ("no.md", "no"),
    ):
      text = f"# Start\n\n[on]({link})\n\n```{{toctree}}\nend\n```\n"
      (pages / "start.md").write_text(text)
      done = self.build(pages, "-c", DOCS, "-D", "root_doc=start")
      self.assertEqual(done.returncode, int(bool(said)), done.stderr)
      self.assertRegex(done.stderr, rf"start.md:3.*{said}" if said else "^$")


if __name__ == "__main__":
  absltest.main()
