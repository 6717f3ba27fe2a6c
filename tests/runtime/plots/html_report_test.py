"""The page stands alone, escapes what it is given and is whole or absent."""

import base64
import html.parser
import io
import os
import pathlib
import re
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import image

from jaxalign.runtime.plots import html_report

VOID = {"meta", "img", "link", "input", "br", "hr"}
HOSTILE = "</title><script>alert('x')</script>\" onerror=\"a & <b>"


class Page(html.parser.HTMLParser):
  """Tags, attributes and text of a page; raises where tags do not nest."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.open, self.images, self.cells = [], [], [], []
    self.text = []
    self.feed(text)
    self.close()
    if self.open:
      raise AssertionError(f"never closed: {self.open}")

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)
    if tag in ("td", "th"):
      self.cells.append([dict(attrs).get("class"), ""])

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      raise AssertionError(f"</{tag}> closes another element")

  def handle_data(self, data):
    if self.open and self.open[-1] not in ("style",):
      self.text.append(data)
      if self.open[-1] in ("td", "th"):
        self.cells[-1][1] += data


class ReportTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder) / "report.html"

  def write(self, *sections, title="Rewards", summary="All well.", **more):
    html_report.write_report(
      self.path, title=title, summary=summary, sections=sections, **more
    )
    return self.path.read_text(encoding="utf-8")

  def test_page_is_valid_and_loads_nothing(self):
    text = self.write(
      html_report.Text("Data", "One.\n\nTwo."),
      html_report.Table("Groups", ["group", "pairs"], [["a", 3]], note="Few."),
      html_report.Figure(
        "Gaps", html_report.gap_histogram([1.0, -1.0]), "Two pairs."
      ),
    )
    page = Page(text)
    self.assertTrue(text.startswith("<!doctype html>"))
    self.assertNotRegex(text, r"""https?:|["'(]//|@import|url\(""")
    names = [tag for tag, _ in page.tags]
    self.assertNoCommonElements(names, ["script", "link", "iframe", "object"])
    for tag, attributes in page.tags:
      self.assertNotIn("href", attributes)
      if "src" in attributes:
        self.assertEqual(tag, "img")
        self.assertStartsWith(attributes["src"], "data:image/png;base64,")
    for sentence in ("All well.", "One.", "Two.", "Few.", "Two pairs."):
      self.assertIn(sentence, page.text)

  def test_warnings_come_before_the_summary(self):
    text = Page(self.write(warnings=["few pairs", "one group"])).text
    said = [words for words in text if words.strip()]
    self.assertEqual(
      said[2:], ["Warning: few pairs.", "Warning: one group.", "All well."]
    )
    self.assertNotIn("Warning", "".join(Page(self.write()).text))

  def test_images_come_back(self):
    png = html_report.reward_histograms([1.0, 2.0], [0.0, 1.0])
    text = self.write(
      html_report.Figure("A", png), html_report.Figure("B", png)
    )
    codes = re.findall(r"base64,([A-Za-z0-9+/=]+)", text)
    self.assertLen(codes, 2)
    for code in codes:
      self.assertEqual(base64.b64decode(code), png)
      pixels = image.imread(io.BytesIO(base64.b64decode(code)))
      self.assertGreater(pixels.shape[1], 600)
      self.assertGreater(pixels.std(), 0.05)  # not one blank sheet

  def test_hostile_text_stays_text_everywhere(self):
    png = html_report.gap_histogram([1.0])
    text = self.write(
      html_report.Text(HOSTILE, HOSTILE),
      html_report.Table(HOSTILE, [HOSTILE], [[HOSTILE]], note=HOSTILE),
      html_report.Figure(HOSTILE, png, HOSTILE),
      title=HOSTILE,
      summary=HOSTILE,
      warnings=[HOSTILE],
    )
    page = Page(text)
    self.assertNoCommonElements([tag for tag, _ in page.tags], ["script", "b"])
    for _, attributes in page.tags:
      self.assertNotIn("onerror", attributes)
    # title, h1, summary; text twice; table title, head, cell, note; figure
    # title and caption.
    self.assertEqual(page.text.count(HOSTILE), 11)
    self.assertIn(f"Warning: {HOSTILE}.", page.text)
    (alt,) = [a["alt"] for tag, a in page.tags if tag == "img"]
    self.assertEqual(alt, HOSTILE)

  def test_broken_unicode_does_not_stop_the_report(self):
    self.assertIn("caf", self.write(html_report.Text("caf\udce9 ☃", "x")))

  @parameterized.parameters(
    (0.123456, "0.1235"),
    (123456.0, "123,456"),
    (np.float32(0.5), "0.5"),
    (1234, "1,234"),
    (np.int64(1234), "1,234"),
    (None, "–"),
    (True, "yes"),
    (np.bool_(False), "no"),
    (float("nan"), "nan"),
    ("70.2–72.2", "70.2–72.2"),
  )
  def test_cells_are_readable(self, value, shown):
    page = Page(self.write(html_report.Table("T", ["c"], [[value]])))
    self.assertEqual(page.cells[1][1], shown)

  def test_columns_of_numbers_are_set_right(self):
    rows = [["a", 1.0, None], ["x" * 41, None, None], ["c", 3, None]]
    page = Page(self.write(html_report.Table("T", ["name", "n", "none"], rows)))
    kinds = [kind for kind, _ in page.cells]
    self.assertEqual(kinds, ["long", "number", ""] * 4)

  def test_wide_tables_scroll_inside_the_page(self):
    table = html_report.Table("T", list("abc"), [[1, 2, 3]])
    self.assertRegex(self.write(table), r'<div class="scroll"[^>]*>\s*<table>')
    self.assertIn(".scroll { overflow-x: auto; }", self.write(table))

  def test_dark_pages_are_styled(self):
    self.assertIn("prefers-color-scheme: dark", self.write())

  def test_failure_leaves_the_old_page_whole(self):
    before = self.write(html_report.Text("A", "first"))
    with (
      mock.patch.object(os, "replace", side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.write(html_report.Text("A", "second"))
    self.assertEqual(self.path.read_text(encoding="utf-8"), before)

  def test_wrong_sections_are_named(self):
    with self.assertRaisesRegex(ValueError, "'T': row 1 has 1 cells for 2"):
      html_report.Table("T", ["a", "b"], [[1, 2], [1]])
    with self.assertRaisesRegex(ValueError, "'F': the bytes are not a PNG"):
      html_report.Figure("F", b"GIF89a")
    with self.assertRaisesRegex(TypeError, "got str"):
      self.write("text")


if __name__ == "__main__":
  absltest.main()
