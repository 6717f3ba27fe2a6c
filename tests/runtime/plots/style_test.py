"""The canvas leaves no trace: no global figures, equal bytes every time."""

import inspect
import io

from absl.testing import absltest
from matplotlib import image

from jaxalign.runtime.plots import figures, panels, style


def drawing(value):
  figure, panels = style.new(4.0, 3.0, 1, 2)
  panels[0, 0].plot([0, value], label="a")
  style.legend(panels[0, 0])
  style.say_empty(panels[0, 1])
  return figure


class CanvasTest(absltest.TestCase):
  def test_size_is_in_inches(self):
    pixels = image.imread(io.BytesIO(style.to_png(drawing(1))))
    self.assertEqual(pixels.shape[:2], (3 * 144, 4 * 144))

  def test_equal_pictures_are_equal_bytes(self):
    first, again, other = (style.to_png(drawing(v)) for v in (1, 1, 2))
    self.assertEqual(first, again)
    self.assertNotEqual(first, other)
    self.assertNotIn(b"Software", first)

  def test_no_global_figures(self):
    # Not sys.modules: another test's libraries may load pyplot.
    for module in (style, figures, panels):
      self.assertNotIn("pyplot", inspect.getsource(module))

  def test_colours_differ(self):
    self.assertLen(set(style.COLOURS), 5)


if __name__ == "__main__":
  absltest.main()
