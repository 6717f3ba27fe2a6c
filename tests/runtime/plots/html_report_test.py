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
from etils import epath
from matplotlib import image

from jaxalign.runtime.plots import figures, html_report, style

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

  def write(self, *sections, title="Rewards", headline="All well.", **more):
    html_report.write_report(
      self.path, title=title, headline=headline, sections=sections, **more
    )
    return self.path.read_text(encoding="utf-8")

  def test_page_is_valid_and_loads_nothing(self):
    text = self.write(
      html_report.Texts("Data", [("One.", {"chosen": "Two."})], folded=True),
      html_report.Table("Groups", ["group", "pairs"], [["a", 3]], note="Few."),
      html_report.Figure(
        "Gaps", figures.gap_histogram([1.0, -1.0]), "Two pairs."
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
    png = figures.reward_histograms([1.0, 2.0], [0.0, 1.0]).png()
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
    png = figures.gap_histogram([1.0]).png()
    text = self.write(
      html_report.Texts(HOSTILE, [(HOSTILE, {HOSTILE: HOSTILE})], HOSTILE),
      html_report.Table(HOSTILE + "2", [HOSTILE], [[HOSTILE]], note=HOSTILE),
      html_report.Figure(HOSTILE + "3", png, HOSTILE),
      title=HOSTILE,
      headline=HOSTILE,
      basis=HOSTILE,
      links=[html_report.Link(HOSTILE, HOSTILE)],
      warnings=[HOSTILE],
    )
    page = Page(text)
    self.assertNoCommonElements([tag for tag, _ in page.tags], ["script", "b"])
    for _, attributes in page.tags:
      self.assertNotIn("onerror", attributes)
    # title, h1, headline, basis, link; texts' title, prompt, label, answer and
    # note; table head, cell, note; caption.
    self.assertEqual(page.text.count(HOSTILE), 14)
    self.assertIn(f"Warning: {HOSTILE}.", page.text)
    self.assertIn(HOSTILE + "2", page.text)
    (alt,) = [a["alt"] for tag, a in page.tags if tag == "img"]
    self.assertEqual(alt, HOSTILE + "3")
    (href,) = [a["href"] for tag, a in page.tags if tag == "a"]
    self.assertEqual(href, HOSTILE)

  def test_a_long_sample_is_cut_where_it_matters_least(self):
    samples = [("x" * 700 + "?", {"chosen": "!" + "y" * 700})]
    text = "".join(Page(self.write(html_report.Texts("T", samples))).text)
    self.assertIn("… " + "x" * 599 + "?", text)
    self.assertIn("!" + "y" * 599 + " …", text)

  def test_a_page_does_without_pictures(self):
    with mock.patch.object(style, "to_png", side_effect=AssertionError):
      page = Page(
        self.write(
          html_report.Table("T", ["c"], [[1]]),
          html_report.Texts("S", [("", {"chosen": "a"})]),
        )
      )
    self.assertNotIn("img", [tag for tag, _ in page.tags])
    self.assertContainsSubset({"T", "S", "chosen", "a"}, {*page.text})

  def test_no_section_is_there_twice(self):
    table = html_report.Table("T", ["c"], [[1]])
    text = html_report.Texts("T", [])
    with self.assertRaisesRegex(
      ValueError, r"of their own, got twice: \['T'\]"
    ):
      self.write(table, text)
    self.assertFalse(self.path.exists())

  def test_detail_is_folded(self):
    table = html_report.Table("Five kinds", ["c"], [[1]], folded=True)
    page = self.write(table)
    self.assertRegex(page, r"<details>\s*<summary>Five kinds</summary>")
    self.assertNotIn("<h2>", page)

  def test_pages_of_a_pipeline_lead_to_each_other(self):
    whole = epath.Path(self.path.parent)
    step = whole / "reward"
    step.mkdir()
    self.assertEmpty(html_report.links_to(whole, [step]))
    with html_report.part_of("whole pipeline", whole):
      html_report.write_report(
        step / "report.html", title="R", headline="Well.", sections=[]
      )
    hrefs = lambda text: [
      (a["href"], text) for tag, a in Page(text).tags if tag == "a"
    ]
    ((up, text),) = hrefs((step / "report.html").read_text())
    self.assertEqual(up, "../report.html")
    self.assertIn("whole pipeline", text)
    for folder in (step, step / "model"):
      (link,) = html_report.links_to(whole, [folder])
      self.assertEqual(link, ("reward", "reward/report.html"))
    table = html_report.Table("T", ["step"], [[link]])
    ((down, _),) = hrefs(self.write(table))
    self.assertEqual(down, "reward/report.html")

  @parameterized.parameters(
    (html_report.percent(0.1234), "12.3 %"),
    (html_report.percent(None), "–"),
    (html_report.decimal(-0.0001), "0.000"),
    (html_report.decimal(None), "–"),
    (
      html_report.interval({"value": 0.5, "low": 0.25, "high": 1}, 2),
      "0.50 [0.25, 1.00]",
    ),
    (
      html_report.percent_interval({"value": 0.5, "low": 0.25, "high": 1}),
      "50.0 % [25.0, 100.0]",
    ),
  )
  def test_numbers_in_sentences(self, got, expected):
    self.assertEqual(got, expected)

  def test_broken_unicode_does_not_stop_the_report(self):
    self.assertIn("caf", self.write(html_report.Texts("caf\udce9 ☃", [])))

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
    before = self.write(html_report.Texts("A", [("first", {})]))
    with (
      mock.patch.object(os, "replace", side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.write(html_report.Texts("A", [("second", {})]))
    self.assertEqual(self.path.read_text(encoding="utf-8"), before)

  def test_wrong_sections_are_named(self):
    with self.assertRaisesRegex(ValueError, "'T': row 1 has 1 cells for 2"):
      html_report.Table("T", ["a", "b"], [[1, 2], [1]])
    with self.assertRaisesRegex(ValueError, "'F': the bytes are not a PNG"):
      html_report.Figure("F", b"GIF89a").files()
    with self.assertRaisesRegex(TypeError, "got str"):
      self.write("text")


if __name__ == "__main__":
  absltest.main()
