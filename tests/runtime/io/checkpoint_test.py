"""Checkpoints: kept, ranked, restored elsewhere, never half."""

import hashlib
import pathlib
import tempfile
from unittest import mock

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.algorithms import train_state
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import checkpoint, filesystem
from tests import gcs_server

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
AXES = {"kernel": ("embed", "mlp"), "bias": ("mlp",)}


def state(seed: int, width: int = 8) -> train_state.TrainState:
  """A state whose moments are not zeros."""
  rng = np.random.default_rng(seed)
  params = {
    "kernel": jnp.array(rng.normal(size=(8, width)), jnp.float32),
    "bias": jnp.array(rng.normal(size=width), jnp.float32),
  }
  start = train_state.init_state(params, OPTIMIZER)
  updates, opt_state = OPTIMIZER.update(params, start.opt_state, params)
  return start._replace(
    params=optax.apply_updates(params, updates),
    opt_state=opt_state,
    step=jnp.int32(seed),
  )


def laid_out(mesh, width: int = 8):
  """The shapes of `state` laid out over a mesh."""
  shapes = jax.eval_shape(lambda: state(0, width))
  per_param = meshes.parameter_shardings(AXES, shapes.params, mesh)
  shardings = train_state.like_params(
    OPTIMIZER, shapes.params, per_param, meshes.replicated(mesh)
  )
  return meshes.with_shardings(shapes, shardings)


class CheckpointsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(tempfile.mkdtemp())
    self.mesh = meshes.make_mesh(meshes.MeshConfig(2, 2, 2))

  def open(self, keep_last=2, keep_best=1, digests=True):
    return checkpoint.Checkpoints(
      self.folder,
      keep_last=keep_last,
      keep_best=keep_best,
      best_metric="eval/nll",
      digests=digests,
    )

  def assert_trees_equal(self, left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)

  def test_keeps_the_last_and_the_best(self):
    scores = {1: 0.7, 2: 0.5, 3: 0.6, 4: None, 5: 0.8}
    with self.open() as saved:
      self.assertIsNone(saved.latest())
      for step, nll in scores.items():
        saved.save(
          step, state(step), None if nll is None else {"eval/nll": nll}
        )
    with self.open() as saved:
      self.assertEqual((saved.latest(), saved.best()), (5, 2))
      self.assert_trees_equal(saved.restore(2, laid_out(self.mesh)), state(2))
      with self.assertRaises(FileNotFoundError):
        saved.restore(3, laid_out(self.mesh))

  def test_the_best_may_be_the_one_that_is_being_saved(self):
    with self.open() as saved:
      for step, score in ((1, 0.5), (2, 0.25)):
        saved.save(step, state(step, width=4096), {"eval/nll": score})
        self.assertEqual(saved.best(), step)

  def test_restores_on_another_topology(self):
    with self.open() as saved:
      laid = jax.tree.map(
        lambda leaf, to: jax.device_put(leaf, to.sharding),
        state(3),
        laid_out(self.mesh),
      )
      saved.save(3, laid, None)
    for sizes in ((1, 1, 1), (1, 4, 1), (8, 1, 1), (1, 2, 4)):
      target = laid_out(meshes.make_mesh(meshes.MeshConfig(*sizes)))
      with self.open() as saved:
        restored = saved.restore(3, target)
      self.assert_trees_equal(restored, state(3))
      self.assertEqual(
        restored.params["kernel"].sharding, target.params["kernel"].sharding
      )
      self.assertEqual(
        restored.opt_state[1][0].mu["kernel"].sharding,
        target.params["kernel"].sharding,
      )

  def test_half_written_step_is_ignored_and_replaced(self):
    with self.open() as saved:
      saved.save(1, state(1), None)
    (self.folder / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with self.open() as saved:
      self.assertEqual(saved.latest(), 1)
      saved.save(2, state(2), None)
      saved.wait()
      self.assertEqual(saved.latest(), 2)
      self.assert_trees_equal(saved.restore(2, laid_out(self.mesh)), state(2))

  def test_arrays_may_be_donated_once_save_returns(self):
    double = jax.jit(
      lambda tree: jax.tree.map(lambda x: x + x, tree), donate_argnums=0
    )
    with self.open() as saved:
      moving = state(4)
      saved.save(4, moving, None)
      double(moving)
      saved.wait()
      self.assert_trees_equal(saved.restore(4, laid_out(self.mesh)), state(4))

  def test_another_model_names_the_first_parameter_that_differs(self):
    with self.open() as saved:
      saved.save(1, state(1), None)
      with self.assertRaisesRegex(
        ValueError, r"params/bias is \(8,\) in the checkpoint and \(16,\)"
      ):
        saved.restore(1, laid_out(self.mesh, width=16))

  def save_two(self, **options):
    with self.open(**options) as saved:
      saved.save(1, state(1), {"eval/nll": 0.5})
      saved.save(2, state(2), {"eval/nll": 0.25})

  def files(self, step):
    """Files of a step's state and metrics, as the store has them."""
    files, root = fsspec.core.url_to_fs(str(self.folder / str(step)))
    return files, [
      name
      for name in files.find(root)
      if "/state/" in name or "/metrics/" in name
      if not name.endswith("commit_success.txt")
    ]

  def flip(self, step, part, byte=-9):
    """Changes a bit of the first file whose path has a part."""
    files, names = self.files(step)
    name = next(name for name in names if part in name)
    content = bytearray(files.cat_file(name))
    content[byte] ^= 1
    files.pipe_file(name, bytes(content))
    return name.rpartition(f"/{step}/")[2]

  def test_a_flipped_bit_is_found_and_an_older_step_named(self):
    self.save_two()
    name = self.flip(2, "/state/ocdbt.process_0/d/")
    with self.open() as saved:
      self.assertEqual(saved.latest(), 2)
      with self.assertRaisesRegex(
        ValueError,
        f"{self.folder}/2/{name} is damaged: its SHA-256.*step 1 is intact: "
        f"remove {self.folder}/2 and run the same command again",
      ):
        saved.restore(2, laid_out(self.mesh))
    (self.folder / "2").rmtree()
    with self.open() as saved:
      self.assertEqual(saved.latest(), 1)
      self.assert_trees_equal(saved.restore(1, laid_out(self.mesh)), state(1))
    self.flip(1, "/state/ocdbt.process_0/d/")
    with (
      self.open() as saved,
      self.assertRaisesRegex(ValueError, "no older step is intact: begin anew"),
    ):
      saved.restore(1, laid_out(self.mesh))

  def test_a_flipped_metric_is_found(self):
    self.save_two()
    self.flip(1, "/metrics/metrics", byte=-3)
    with self.assertRaisesRegex(
      ValueError, r"1/metrics/metrics is damaged.*remove .*/1 to go on without"
    ):
      self.open()

  def test_an_old_step_that_a_kill_left_half_deleted_stops_nobody(self):
    self.save_two()
    (self.folder / "1" / "metrics").rmtree()
    with self.open() as saved:
      self.assert_trees_equal(saved.restore(2, laid_out(self.mesh)), state(2))
      self.assertEqual(saved.best(), 2)
      for step in (3, 4, 5):
        saved.save(step, state(step), {"eval/nll": 1.0})
    self.assertFalse((self.folder / "1").exists())
    (self.folder / "5" / "metrics").rmtree()
    with self.assertRaisesRegex(ValueError, "5/metrics/metrics is damaged: it"):
      self.open()

  def test_digests_can_be_turned_off(self):
    self.save_two(digests=False)
    self.assertFalse((self.folder / "2" / "state" / "SHA256SUMS").exists())
    for digests in (False, True):
      with self.open(digests=digests) as saved:
        self.assert_trees_equal(saved.restore(2, laid_out(self.mesh)), state(2))
    files, names = self.files(2)
    files.rm_file(next(n for n in names if n.endswith("state/_METADATA")))
    with (
      self.open() as saved,
      self.assertRaisesRegex(
        ValueError, "2 cannot be read .*step 1 is older and has no digests"
      ),
    ):
      saved.restore(2, laid_out(self.mesh))

  def test_saving_a_step_twice_is_an_error(self):
    with self.open() as saved:
      saved.save(1, state(1), None)
      with self.assertRaisesRegex(ValueError, r"already holds steps \[1\]"):
        saved.save(1, state(1), None)

  def test_a_store_is_refused_by_name(self):
    with self.assertRaisesRegex(ValueError, "kept in abfs://b/c: must be a"):
      checkpoint.check_directory("abfs://b/c")
    with (
      mock.patch.object(jax, "process_count", return_value=4),
      self.assertRaisesRegex(ValueError, "of 4 hosts cannot be kept in s3://b"),
    ):
      checkpoint.check_directory("s3://b/c")

  def test_numbers_are_checked(self):
    with self.assertRaisesRegex(ValueError, "got 0 and 1"):
      self.open(keep_last=0)


class DigestsTest(parameterized.TestCase):
  """What is on a disk of a step with digests."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    self.mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
    with self.open() as saved:
      saved.save(1, state(1), None)
      saved.save(2, state(2), None)

  def open(self):
    return checkpoint.Checkpoints(
      self.folder, keep_last=2, keep_best=0, best_metric="eval/nll"
    )

  def test_the_usual_program_finds_them_right(self):
    text = (self.folder / "2" / "state" / "SHA256SUMS").read_text()
    sums = dict(reversed(line.split("  ")) for line in text.splitlines())
    self.assertGreater(len(sums), 5)
    for name, digest in sums.items():
      content = (self.folder / "2" / "state" / name).read_bytes()
      self.assertEqual(hashlib.sha256(content).hexdigest(), digest)

  def test_orbax_alone_reads_them(self):
    with ocp.CheckpointManager(self.folder) as manager:
      args = ocp.args.StandardRestore(laid_out(self.mesh))
      got = manager.restore(2, args=ocp.args.Composite(state=args))["state"]
    jax.tree.map(np.testing.assert_array_equal, got, state(2))

  @parameterized.parameters("flip", "cut", "gone")
  def test_no_damage_to_any_file_gives_another_state(self, kind):
    rng = np.random.default_rng(0)
    kept = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
    refused = 0
    text = (self.folder / "2" / "state" / "SHA256SUMS").read_text()
    for path, content in kept.items():
      if path.relative_to(self.folder).parts[0] == "1":
        continue
      if kind == "flip":
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
      elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
      else:
        path.unlink()
      try:
        with self.open() as saved:
          got = saved.restore(2, laid_out(self.mesh))
        jax.tree.map(np.testing.assert_array_equal, got, state(2))
      except ValueError as error:
        self.assertIn("step 1 is intact", str(error))
        refused += 1
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(content)
    self.assertGreaterEqual(refused, len(text.splitlines()))


class BucketTest(CheckpointsTest):
  """The same in gs://, where a checkpoint counts by an object."""

  def setUp(self):
    super().setUp()
    self.server = gcs_server.started(self, "bucket")
    self.folder = filesystem.open_workdir("gs://bucket/run/checkpoints")

  def test_keeps_the_last_and_the_best(self):
    super().test_keeps_the_last_and_the_best()
    kept = {n.split("/")[2] for n in self.server.names("bucket", "run/")}
    self.assertEqual(kept, {"2", "4", "5"})

  def test_half_written_step_is_ignored_and_replaced(self):
    with self.open() as saved:
      saved.save(1, state(1), None)
      saved.save(2, state(5), None)
    self.server.delete("bucket", "run/checkpoints/2/commit_success.txt", {})
    with self.open() as saved:
      self.assertEqual(saved.latest(), 1)
      saved.save(2, state(2), None)
      saved.wait()
      self.assertEqual(saved.latest(), 2)
      self.assert_trees_equal(saved.restore(2, laid_out(self.mesh)), state(2))


if __name__ == "__main__":
  absltest.main()
