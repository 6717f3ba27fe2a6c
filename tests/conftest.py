"""Every test sees 8 CPU devices, strict promotion and no network.

With JAX_PLATFORMS=cuda,cpu they run on a GPU, and what needs more devices is
skipped.
"""

import collections
import contextlib
import ctypes
import gc
import json
import os
import pathlib
import random

# Before JAX starts: the device count is read once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from jaxalign.runtime import compilation_cache  # noqa: E402
from tests import temporary, tier  # noqa: E402

# Ids of tests that took too long for the fast tier when `--measure` looked; a
# test can also say so itself, by the mark.
SLOW = pathlib.Path(__file__).with_name("slow.txt")

# One cache of compiled programs for all workers, their subprocesses and the
# next run; its name says for which CPU.
COMPILED = (
  pathlib.Path(__file__).parents[1]
  / ".pytest_cache"
  / f"programs-{compilation_cache.cpu_features()}"
)
if compilation_cache.enable(str(COMPILED)):
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# The same examples in every run: what fails was changed, not drawn.
hypothesis.settings.register_profile("same_examples", derandomize=True)
hypothesis.settings.load_profile("same_examples")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
if os.environ["JAX_PLATFORMS"] != "cpu":  # no float32 in fewer bits
  jax.config.update("jax_default_matmul_precision", "highest")

# optax raises a float to an integer step count, which strict promotion refuses.
CALLS_OPTAX = ("algorithms", "runtime", "experiments", "benchmarks")


@pytest.fixture(autouse=True)
def dtype_promotion(request):
  folders = pathlib.Path(request.fspath).parts
  lenient = any(folder in folders for folder in CALLS_OPTAX)
  with jax.numpy_dtype_promotion("standard" if lenient else "strict"):
    yield


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_go():
  """A worker that kept the programs of every module would grow to gigabytes."""
  yield
  jax.clear_caches()
  gc.collect()
  # What glibc keeps of them is more than all that a worker uses.
  if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
    trim(0)


def pytest_collection_finish():
  # What is imported by now stays: collections of garbage need not look at it.
  gc.collect()
  gc.freeze()


def pytest_addoption(parser):
  parser.addoption(
    "--tier",
    choices=("fast", "slow", "all"),
    default="fast",
    help="fast: what is not marked slow (the default); slow: the rest",
  )
  parser.addoption(
    "--full",
    action="store_true",
    help="the fast tier compiles as users do, and takes longer",
  )
  parser.addoption(
    "--part",
    default="1/1",
    metavar="K/N",
    help="of the classes with slow tests, every Nth beginning with the Kth",
  )
  parser.addoption(
    "--measure",
    metavar="FILE",
    help="append a line of JSON per test: its id and its CPU-seconds",
  )
  parser.addoption(
    "--shuffle",
    type=int,
    metavar="SEED",
    help="run files, classes and tests in an order drawn from this seed",
  )


def pytest_configure(config):
  tier.name = config.getoption("--tier")
  tier.full = config.getoption("--full") or not tier.is_fast()
  os.environ["XLA_FLAGS"] += f" {tier.xla_flags()}"  # JAX has not started yet
  session = contextlib.ExitStack()
  session.enter_context(temporary.folder())
  config.add_cleanup(session.close)


def pytest_collection_modifyitems(config, items):
  listed = {*SLOW.read_text(encoding="utf-8").split()}
  for item in items:
    if item.nodeid in listed:
      item.add_marker(pytest.mark.slow)
  named = tuple(arg for arg in config.args if "::" in arg)
  try:
    part, parts = map(int, config.getoption("--part").split("/"))
    if not 1 <= part <= parts:
      raise ValueError
  except ValueError:
    raise pytest.UsageError(
      f"--part must be K/N with 1 <= K <= N, got {config.getoption('--part')!r}"
    ) from None
  slow = {item for item in items if "slow" in item.keywords}
  # Those that check less in the fast tier are in both.
  both = {item for item in items if tier.is_in_both(item.function)}
  classes = sorted({item.parent.nodeid for item in slow | both})
  drawn = {*classes[part - 1 :: parts]}

  def wanted(item):
    if tier.name == "all" or item.nodeid.startswith(named):
      return True
    if tier.is_fast():
      return item not in slow
    return item in slow | both and item.parent.nodeid in drawn

  config.hook.pytest_deselected(items=[i for i in items if not wanted(i)])
  items[:] = [item for item in items if wanted(item)]
  # Pages run for minutes on one worker: the others then have enough to do.
  items.sort(key=lambda item: item.path.name != "documented_test.py")
  if (seed := config.getoption("--shuffle")) is not None:
    _shuffle(items, seed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
  """Measures a test, its fixtures and the processes that it waited for."""
  file = item.config.getoption("--measure")
  before = sum(os.times()[:4])
  result = yield
  if file is not None:
    line = json.dumps([item.nodeid, round(sum(os.times()[:4]) - before, 2)])
    with open(file, "a", encoding="utf-8") as out:
      out.write(f"{line}\n")
  return result


def _shuffle(items, seed):
  """Another order of files, of the classes in each and of the tests in each."""
  draw = random.Random(seed)
  rank = collections.defaultdict(draw.random)
  items.sort(
    key=lambda i: (rank[i.path], rank[i.parent.nodeid], rank[i.nodeid])
  )
