"""A user's mistake is distinguished from a defect."""

import contextlib
import io
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.ops import checks
from jaxalign.runtime import user_errors
from jaxalign.runtime.io import filesystem


def raised(function, *args, **options) -> Exception:
  try:
    function(*args, **options)
  except Exception as error:  # noqa: BLE001
    return error
  raise AssertionError("nothing was raised")


class UserErrorsTest(parameterized.TestCase):
  @parameterized.parameters(
    (lambda: checks.one_of(("a", "b"), kind="c"), True),
    (lambda: filesystem.open_workdir("ftp://a"), True),
    (lambda: open("no such file"), True),  # noqa: SIM115
    # Not expected: bad values of the library, or code of one's own.
    (lambda: checks.one_of(None, kind="c"), False),
    (lambda: int("three"), False),
    (lambda: {}["key"], False),
  )
  def test_whose_it_is(self, function, users):
    self.assertEqual(user_errors.is_users(raised(function)), users)

  def test_a_defect_in_between_stays_one(self):
    def function():
      try:
        checks.one_of(("a",), kind="c")
      except ValueError as error:
        raise KeyError("of a handler") from error

    self.assertFalse(user_errors.is_users(raised(function)))

  def test_one_line(self):
    folder = tempfile.mkdtemp()
    for error, line in (
      (raised(open, folder, "w"), f"{folder}: Is a directory"),
      (ValueError("a\n  b"), "a b"),
      (RuntimeError(), "RuntimeError"),
    ):
      written = io.StringIO()
      with contextlib.redirect_stderr(written):
        status = user_errors.report(error, verbose=False)
      self.assertEqual((status, written.getvalue()), (2, f"error: {line}\n"))


if __name__ == "__main__":
  absltest.main()
