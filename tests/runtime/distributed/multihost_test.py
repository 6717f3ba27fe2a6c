"""Arrays and numbers across two real processes over gloo."""

import os
import socket
import subprocess
import sys
import textwrap
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxalign.runtime.distributed import multihost
from tests import checkout

PROGRAM = textwrap.dedent("""
  import sys
  import jax
  from jax.sharding import AxisType, NamedSharding, PartitionSpec
  import numpy as np
  from jaxalign.runtime.distributed import multihost

  port, process_id = sys.argv[1], int(sys.argv[2])
  multihost.initialize(
    coordinator=f"127.0.0.1:{port}",
    num_processes=2,
    process_id=process_id,
    timeout_s=60,
  )
  if jax.process_count() != 2 or multihost.is_main() != (process_id == 0):
    raise SystemExit("wrong process")
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  mine = np.arange(6, dtype=np.int32).reshape(2, 3) + 6 * process_id
  batch = multihost.global_batch({"tokens": mine, "where": mine > 4}, rows)
  total = jax.jit(
    lambda b: b["tokens"].sum(),
    out_shardings=NamedSharding(mesh, PartitionSpec()),
  )(batch)
  got = multihost.fetch({"batch": batch, "total": total, "plain": np.ones(2)})
  want = np.arange(12).reshape(4, 3)
  np.testing.assert_array_equal(got["batch"]["tokens"], want)
  np.testing.assert_array_equal(got["batch"]["where"], want > 4)
  np.testing.assert_array_equal(got["total"], want.sum())
  np.testing.assert_array_equal(got["plain"], np.ones(2))
  big = np.asarray([[2**40 + process_id]], np.int64)
  np.testing.assert_array_equal(
    multihost.all_hosts_gather(big), [[[2**40]], [[2**40 + 1]]]
  )
  np.testing.assert_array_equal(multihost.all_hosts_sum(big), [[2**41 + 1]])
  multihost.barrier("end")
  sys.stdout.write("done")
""")


def free_port():
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]


class InitializeTest(parameterized.TestCase):
  def test_names_what_was_not_given(self):
    with self.assertRaisesRegex(ValueError, "missing: process_id"):
      multihost.initialize(
        coordinator="a:1", num_processes=2, process_id=None, timeout_s=1
      )

  def test_process_id_must_be_below_the_number(self):
    with self.assertRaisesRegex(ValueError, r"\[0, num_processes=2\), got 2"):
      multihost.initialize(
        coordinator="a:1", num_processes=2, process_id=2, timeout_s=1
      )

  def test_without_any_jax_looks_for_the_others_itself(self):
    with mock.patch.object(jax.distributed, "initialize") as initialize:
      multihost.initialize(
        coordinator=None, num_processes=None, process_id=None, timeout_s=7
      )
    initialize.assert_called_once_with(initialization_timeout=7)

  @parameterized.parameters(
    ("a", "a:8482"), ("a:1", "a:1"), ("[::1]", "[::1]:8482"), ("[::1]:2",) * 2
  )
  def test_a_host_without_a_port_has_one_that_all_agree_on(self, given, full):
    self.assertEqual(multihost.with_port(given), full)


class ChecksTest(absltest.TestCase):
  """What processes are told of each other, by a gather that is made up."""

  def gathering(self, *rows):
    self.enter_context(
      mock.patch.object(
        multihost, "all_hosts_gather", lambda mine: np.array(rows, mine.dtype)
      )
    )

  def test_the_same_passes_and_another_is_named(self):
    self.gathering([1, 2], [1, 2], [1, 2])
    multihost.check_same("the data", bytes([1, 2]))
    self.gathering([1, 2], [1, 2], [1, 3])
    with self.assertRaisesRegex(ValueError, "the data of process 2 differs"):
      multihost.check_same("the data", bytes([1, 2]))

  def test_shares_must_be_disjoint_and_whole(self):
    self.gathering([0, 1], [2, 3])
    multihost.check_shares(np.array([0, 1]), 4)
    self.gathering([0, 1], [1, 2])
    with self.assertRaisesRegex(ValueError, r"row 1 of a batch of 4.*\[0, 1\]"):
      multihost.check_shares(np.array([0, 1]), 4)
    self.gathering([0, 1], [3, 4])
    with self.assertRaisesRegex(ValueError, r"row 2 of.*got \[\]"):
      multihost.check_shares(np.array([0, 1]), 4)

  def test_a_row_shown_twice_is_named(self):
    pack = lambda *rows: np.packbits(np.isin(np.arange(19), rows))
    self.gathering(pack(0, 17), pack(9, 18), pack(4))
    multihost.check_disjoint("the data", np.isin(np.arange(19), (0, 17)))
    self.gathering(pack(0, 17), pack(9, 18), pack(17, 18))
    with self.assertRaisesRegex(
      ValueError, r"row 17 of the data is .* processes \[0, 2\], and 1 others"
    ):
      multihost.check_disjoint("the data", np.isin(np.arange(19), (0, 17)))


class TwoProcessesTest(absltest.TestCase):
  def test_arrays_cross_hosts(self):
    port = free_port()
    processes = [
      subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port), str(i)],
        cwd=checkout.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
          **os.environ,
          "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
      )
      for i in range(2)
    ]
    for process in processes:
      out, err = process.communicate(timeout=120)
      self.assertIn("done", out, err[-3000:])
      self.assertEqual(process.returncode, 0, err[-3000:])


class OneProcessTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    self.rows = NamedSharding(mesh, PartitionSpec("data"))
    self.whole = NamedSharding(mesh, PartitionSpec())

  def test_batch_is_placed_and_fetched(self):
    batch = {"a": np.arange(16).reshape(8, 2), "b": np.ones((8,), np.bool_)}
    placed = multihost.global_batch(batch, self.rows)
    self.assertEqual(placed["a"].sharding, self.rows)
    for name, array in multihost.fetch(placed).items():
      np.testing.assert_array_equal(array, batch[name])

  def test_each_leaf_may_have_its_sharding(self):
    placed = multihost.global_batch(
      {"a": np.zeros((8, 2)), "b": np.zeros(3)},
      {"a": self.rows, "b": self.whole},
    )
    self.assertEqual(placed["a"].sharding, self.rows)
    self.assertEqual(placed["b"].sharding, self.whole)

  def test_rows_may_be_overwritten_afterwards(self):
    # Aligned, as JAX then shares the memory of NumPy arrays.
    memory = np.zeros(8 * 4096 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    rows = memory[start : start + 8 * 4096].reshape(8, 4096)
    placed = multihost.global_batch({"a": rows}, self.rows)
    jax.block_until_ready(placed)
    rows[:] = 7
    self.assertEqual(np.max(multihost.fetch(placed)["a"]), 0)

  def test_gather_and_sum_keep_64_bits(self):
    big = np.asarray([2**53 + 1, -1], np.int64)
    np.testing.assert_array_equal(multihost.all_hosts_gather(big), big[None])
    total = multihost.all_hosts_sum(big)
    np.testing.assert_array_equal(total, big)
    self.assertEqual(total.dtype, np.int64)

  def test_this_process_is_the_main_one(self):
    self.assertTrue(multihost.is_main())
    multihost.barrier("alone")


if __name__ == "__main__":
  absltest.main()
