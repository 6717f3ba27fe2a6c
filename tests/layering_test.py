"""The floors: who may import what, down to the package and the file.

A floor imports the floors below it and the outside packages of its row, and
nothing else. The table is the design; a line added here is a decision.
"""

import ast
import os
import re
import subprocess
import sys
from typing import NamedTuple

from absl.testing import absltest, parameterized

from tests import checkout


class Floor(NamedTuple):
  """What a folder of the package may import.

  Attributes:
    below: folders of jaxalign.
    outside: packages from outside the standard library; a dotted name allows
      that module only.
    pure: no file, clock, process or log may be reached.
  """

  below: tuple[str, ...]
  outside: tuple[str, ...]
  pure: bool = False


CORE = ("jax", "numpy")
BELOW_RUNTIME = ("ops", "losses", "metrics", "models", "data", "algorithms")
BELOW_STAGES = (*BELOW_RUNTIME, "runtime")
STAGES = (*CORE, "optax", "etils.epath", "absl", "ml_collections", "rich")
FLOORS = {
  "ops": Floor((), CORE, pure=True),
  "losses": Floor(("ops",), CORE, pure=True),
  "metrics": Floor(("ops",), CORE, pure=True),
  "models": Floor(
    ("ops", "losses", "metrics"),
    (*CORE, "flax.linen", "safetensors", "etils.epath"),
  ),
  "data": Floor(
    ("ops", "losses", "metrics"),
    (
      "numpy",
      "datasets",
      "grain",
      "tokenizers",
      "transformers",
      "httpx",
      "etils.epath",
    ),
  ),
  "algorithms": Floor(
    ("ops", "losses", "metrics"), (*CORE, "optax"), pure=True
  ),
  "runtime": Floor(
    BELOW_RUNTIME,
    (
      *CORE,
      "optax",
      "orbax",
      "etils.epath",
      "fsspec",
      "trackio",
      "wandb",
      "rich",
      "matplotlib",
      "jinja2",
      "huggingface_hub",
    ),
  ),
  # Folders of experiments, each below the next; the stages stand on them all.
  "experiments/common": Floor(BELOW_STAGES, STAGES),
  "experiments/datasets": Floor(BELOW_STAGES, STAGES),
  "experiments/llm_labels": Floor(BELOW_STAGES, STAGES),
  "experiments/reward_model": Floor(
    (
      *BELOW_STAGES,
      "experiments/common",
      "experiments/datasets",
      "experiments/llm_labels",
    ),
    STAGES,
  ),
  "experiments/policy": Floor(
    (
      *BELOW_STAGES,
      "experiments/common",
      "experiments/datasets",
      "experiments/reward_model",
    ),
    (*STAGES, "starlette"),
  ),
  "experiments/reports": Floor(
    (
      *BELOW_STAGES,
      "experiments/datasets",
      "experiments/llm_labels",
      "experiments/reward_model",
      "experiments/policy",
    ),
    STAGES,
  ),
  "experiments": Floor(
    (
      *BELOW_STAGES,
      "experiments/common",
      "experiments/datasets",
      "experiments/llm_labels",
      "experiments/reward_model",
      "experiments/policy",
      "experiments/reports",
    ),
    (*STAGES, "transformers", "torch", "uvicorn"),
  ),
}

# Modules of no folder: both load nothing from outside the standard library.
TOP = {
  "__init__.py": Floor((), (), pure=True),
  "__main__.py": Floor(("experiments/common",), ()),
}

# Packages with one home: a second one would be a second client, a second way
# to read a checkpoint, or weight that everyone pays for.
HOMES = {
  "httpx": ("data/llm_labels/client.py",),
  "huggingface_hub": ("runtime/io/hub.py",),
  "torch": ("experiments/verify.py",),
  "starlette": ("experiments/policy/reward_app.py",),
  "uvicorn": ("experiments/serve.py",),
}

IMPURE = frozenset(
  "asyncio datetime glob io json logging multiprocessing os pathlib pickle "
  "random shutil socket subprocess sys tempfile threading time urllib".split()
)

# Import name -> name in setup.py, where they differ.
DISTRIBUTIONS = {
  "absl": "absl-py",
  "ml_collections": "ml-collections",
  "orbax": "orbax-checkpoint",
}


def _floor(name: str) -> str:
  """Innermost row of the table that holds `a/b` or `jaxalign.a.b.c`, or `a`."""
  parts = name.replace(".", "/").removeprefix("jaxalign").strip("/").split("/")
  subpackage = "/".join(parts[:2])
  return subpackage if subpackage in FLOORS else parts[0]


def _within(name: str, allowed: tuple[str, ...]) -> bool:
  return any(name == a or name.startswith(f"{a}.") for a in allowed)


def violations(path: str, source: str) -> list[str]:
  """Imports that the floor of a file does not allow.

  Args:
    path: below jaxalign/, e.g. "ops/masked.py".
    source: text of the file.

  Returns:
    One line per violation, empty for none.
  """
  folder, _, _ = path.rpartition("/")
  home = _floor(folder)
  floor = FLOORS.get(home)
  # Stages are in an order below each other, so each of their folders is a row.
  if floor is None or (home == "experiments" and folder != home):
    if path not in TOP:
      return [f"jaxalign/{path}: no such floor; layering_test.py lists them"]
    floor = TOP[path]
  found = []
  for line, name in checkout.imports(ast.parse(source)):
    top = name.partition(".")[0]
    if name.startswith("."):
      reason = "relative import"
    elif top == "jaxalign":
      below = _floor(name)
      if below not in FLOORS or below in (*floor.below, home):
        continue
      reason = f"imports point downwards only, {below} is not below"
    elif top in sys.stdlib_module_names:
      if not (floor.pure and top in IMPURE):
        continue
      reason = "this floor sees no file, clock, process or log"
    elif not _within(name, floor.outside):
      reason = "package not allowed on this floor"
    elif top in HOMES and path not in HOMES[top]:
      reason = f"only in {', '.join(HOMES[top])}"
    else:
      continue
    found.append(f"jaxalign/{path}:{line}: import of {name}: {reason}")
  return found


class LayeringTest(parameterized.TestCase):
  def test_every_module_stays_on_its_floor(self):
    found = []
    for path in checkout.library_files():
      name = path.relative_to(checkout.LIBRARY).as_posix()
      found += violations(name, path.read_text())
    self.assertEmpty(found, "\n" + "\n".join(found))

  @parameterized.parameters(
    ("losses/a.py", "import flax"),
    ("losses/a.py", "from jaxalign.metrics import preference"),
    ("losses/a.py", "from jaxalign import models"),
    ("ops/a.py", "from jaxalign.losses.pairwise import bradley_terry_loss"),
    ("ops/a.py", "import optax"),
    ("ops/a.py", "def f():\n  import scipy.special"),
    ("ops/a.py", "import time"),
    ("metrics/a.py", "import jaxalign.runtime.io.metric_writer"),
    ("metrics/a.py", "from . import preference"),
    ("models/a.py", "from flax import nnx"),
    ("models/a.py", "from jaxalign import data"),
    ("models/a.py", "from absl import logging"),
    ("data/a.py", "import httpx"),
    ("data/a.py", "from jaxalign.algorithms import update"),
    ("algorithms/a.py", "import flax.linen as nn"),
    ("algorithms/a.py", "from jaxalign.data.batching import loader"),
    ("algorithms/a.py", "import pathlib"),
    ("runtime/a.py", "import ml_collections"),
    ("runtime/a.py", "from jaxalign.experiments.common import cli"),
    ("experiments/a.py", "import flax.linen"),
    ("experiments/a.py", "import torch"),
    ("experiments/reward_model/a.py", "from jaxalign.experiments import sft"),
    (
      "experiments/reward_model/a.py",
      "from jaxalign.experiments import policy",
    ),
    ("experiments/common/a.py", "import jaxalign.experiments.datasets.sft"),
    ("experiments/utils/a.py", "import jax"),
    ("utils/a.py", "import jax"),
    ("utils.py", ""),
    ("models/hf/a.py", "from jaxalign.data import records"),
    ("__init__.py", "import jax"),
    ("__init__.py", "from jaxalign import losses"),
    ("__main__.py", "import absl"),
    ("__main__.py", "from jaxalign.experiments import score"),
  )
  def test_notices(self, path, source):
    self.assertLen(violations(path, source), 1)

  @parameterized.parameters(
    ("losses/a.py", "from jaxalign.ops import checks\nimport jax.numpy as jnp"),
    ("losses/a.py", "from jaxalign.losses import pairwise\nimport math"),
    ("models/a.py", "from flax import linen as nn\nimport os"),
    ("data/llm_labels/client.py", "import httpx"),
    (
      "experiments/policy/a.py",
      "from jaxalign.experiments.reward_model import scoring",
    ),
    ("runtime/a.py", "import jaxalign\nfrom jaxalign import __version__"),
    (
      "experiments/verify.py",
      "from jaxalign.runtime.distributed import mesh\nimport torch",
    ),
  )
  def test_allows(self, path, source):
    self.assertEmpty(violations(path, source))

  def test_floors_form_no_circle(self):
    order = [*FLOORS]
    for name, floor in FLOORS.items():
      for below in floor.below:
        self.assertLess(order.index(below), order.index(name))

  def test_setup_declares_every_package_that_may_be_imported(self):
    setup = (checkout.ROOT / "setup.py").read_text()
    for floor in FLOORS.values():
      for name in floor.outside:
        top = name.partition(".")[0]
        wanted = DISTRIBUTIONS.get(top, top)
        self.assertRegex(setup, rf'"{re.escape(wanted)}[\[><=]', name)


class LightImportTest(absltest.TestCase):
  # What a JAX user who only wants a loss must not be made to load.
  HEAVY = (
    "flax optax absl orbax tensorflow transformers datasets grain torch "
    "ml_collections tokenizers safetensors matplotlib httpx"
  ).split()

  def loaded(self, statement: str) -> str:
    code = (
      f"{statement}\nimport sys\n"
      f"print(*(m for m in {self.HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run(
      [sys.executable, "-c", code],
      cwd=checkout.ROOT,
      check=True,
      capture_output=True,
      text=True,
    )
    return done.stdout.strip()

  def test_core_loads_jax_and_numpy_alone(self):
    self.assertEqual(
      self.loaded("import jaxalign\nfrom jaxalign import losses, metrics, ops"),
      "",
    )

  def test_would_notice(self):
    self.assertEqual(self.loaded("import optax"), "optax absl")

  def test_importing_the_stages_wakes_no_device(self):
    # jax.distributed must come first where there are many processes.
    for first, expected in (("", "False"), ("jax.devices()", "True")):
      code = f"""
import sys, jax
from jax._src import xla_bridge
from jaxalign.experiments import compile, personas, train_reward
{first}
sys.stdout.write(str(xla_bridge.backends_are_initialized()))
"""
      done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=True,
        capture_output=True,
        text=True,
      )
      self.assertEqual(done.stdout, expected)


if __name__ == "__main__":
  absltest.main()
