"""Warnings of the partitioner, read from the descriptor it writes to."""

import os
import sys
from unittest import mock

from absl.testing import absltest

from jaxalign.runtime.profiling import hlo_collectives

NEW = (
  "W1125 20:50:51.657142 8891 spmd_partitioner.cc:654] [SPMD] Involuntary full "
  "rematerialization. The compiler cannot go from sharding {devices=[2,2,2]"
  "<=[2,2,2]T(1,0,2) last_tile_dim_replicate} to {devices=[1,8]<=[8]} "
  "efficiently for HLO operation %sin.14 = f32[32,32]{1,0} sine(%x), sharding="
  '{devices=[8,1]<=[8]}, metadata={op_name="jit(f)/sin" stack_frame_id=2}. As '
  "the last resort, SPMD will replicate the tensor"
)
OLD = (
  "[spmd] Involuntary full rematerialization. The compiler was not able to go "
  "from sharding {replicated} to {devices=[8]<=[8]} without doing a full "
  "rematerialization of the tensor for HLO operation: %a = bf16[4]{0} add(%b)"
)


class InvoluntaryTest(absltest.TestCase):
  def test_both_wordings_are_read(self):
    found = hlo_collectives.involuntary(f"other\n{NEW}\n{OLD}\n{NEW}\n")
    self.assertEqual(
      found,
      [
        hlo_collectives.Reshard(
          "f32[32,32]",
          "{devices=[2,2,2]<=[2,2,2]T(1,0,2) last_tile_dim_replicate}",
          "{devices=[1,8]<=[8]}",
          "jit(f)/sin",
          2,
        ),
        hlo_collectives.Reshard(
          "bf16[4]", "{replicated}", "{devices=[8]<=[8]}", "", 1
        ),
      ],
    )
    self.assertEqual(hlo_collectives.involuntary("nothing of the kind"), [])


class LogTest(absltest.TestCase):
  def test_what_goes_to_the_descriptor_is_kept_from_the_terminal(self):
    with hlo_collectives.compiler_log() as log:
      os.write(2, b"from a library\n")
    self.assertEqual(log, ["from a library\n"])

  def test_an_error_passes_it_on(self):
    with (
      mock.patch.object(sys, "stderr") as screen,
      self.assertRaises(KeyError),
      hlo_collectives.compiler_log(),
    ):
      os.write(2, b"why\n")
      raise KeyError
    screen.write.assert_called_once_with("why\n")


if __name__ == "__main__":
  absltest.main()
