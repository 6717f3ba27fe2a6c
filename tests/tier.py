"""Which tier runs here; checks that have a thorough form ask it."""

import inspect

import jaxlib.version

# Functions that check less in the fast tier; tests that call them are in both.
THOROUGH = {"assert_same_in_all_modes", "assert_second_order"}

# tests/conftest.py says both.
name = "all"
full = True  # programs are compiled as users compile them


def is_fast() -> bool:
  """Whether checks keep to what finds most."""
  return name == "fast"


def is_in_both(function) -> bool:
  """Whether a test does more in the slow tier than in the fast one."""
  return bool(THOROUGH & {*inspect.unwrap(function).__code__.co_names})


def xla_flags() -> str:
  """Flags of XLA for programs that run once, as those of the fast tier do.

  Compilation is two thirds of a test's time, and less than half of it is left
  without LLVM's optimisations and the emitters of fusions, which JAX 0.11 has
  no other for.
  """
  if full:
    return ""
  flags = "--xla_backend_optimization_level=0"
  if jaxlib.version.__version_info__ < (0, 11):
    flags += " --xla_cpu_use_fusion_emitters=false"
  return flags
