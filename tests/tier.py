"""Which tier runs here; checks that have a thorough form ask it."""

import inspect

# Functions that check less in the fast tier; tests that call them are in both.
THOROUGH = {"assert_same_in_all_modes", "assert_second_order"}

name = "all"  # tests/conftest.py says so


def is_fast() -> bool:
  """Whether checks keep to what finds most."""
  return name == "fast"


def is_in_both(function) -> bool:
  """Whether a test does more in the slow tier than in the fast one."""
  return bool(THOROUGH & {*inspect.unwrap(function).__code__.co_names})
