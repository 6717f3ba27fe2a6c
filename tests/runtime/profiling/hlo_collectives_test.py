"""Collectives in literal HLO, and in programs compiled for 8 devices."""

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxalign.runtime.profiling.hlo_collectives import Collective, collectives


def lines(text):
  return collectives(textwrap.dedent(text))


class LiteralTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      "%ar = f32[4,8]{1,0} all-reduce(%x), channel_id=1, to_apply=%add",
      Collective("all-reduce", (4, 8), "f32", 128, 1),
    ),
    (
      "ROOT ag.1 = bf16[16]{0:T(8,128)(2,1)S(1)} all-gather(p), dimensions={0}",
      Collective("all-gather", (16,), "bf16", 32, 1),
    ),
    (
      "%rs = f32[2,8] reduce-scatter(%x), dimensions={0}, to_apply=%add",
      Collective("reduce-scatter", (2, 8), "f32", 64, 1),
    ),
    (
      "%p = pred[]{:T(128)} collective-permute(%x)",
      Collective("collective-permute", (), "pred", 1, 1),
    ),
    (
      "%a = s4[9]{0:E(4)} all-to-all(%x), dimensions={0}",
      Collective("all-to-all", (9,), "s4", 5, 1),
    ),
    (
      "%a = c64[<=4,2]{1,0} all-to-all(%x), dimensions={0}",
      Collective("all-to-all", (4, 2), "c64", 64, 1),
    ),
    (
      "%s = f32[8]{0} all-reduce-start(%x), channel_id=2",
      Collective("all-reduce", (8,), "f32", 32, 1),
    ),
    (
      "%s = (f32[1,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%x)",
      Collective("all-gather", (8, 4), "f32", 128, 1),
    ),
    (
      "%s = (u8[4], u8[4], u32[], u32[]) collective-permute-start(%x)",
      Collective("collective-permute", (4,), "u8", 4, 1),
    ),
    (
      "%s = ((f32[16]{0}), f32[2]{0}, s32[]) reduce-scatter-start(%x)",
      Collective("reduce-scatter", (16,), "f32", 64, 1),
    ),
  )
  def test_one_line(self, text, expected):
    self.assertEqual(lines(text), [expected])

  @parameterized.parameters(
    "%d = f32[8]{0} all-reduce-done(%s)",
    "%d = f32[8]{0} add(%all-reduce, %all-gather.1)",
    '%d = f32[8]{0} add(%a, %b), metadata={op_name="all-reduce(x)"}',
  )
  def test_what_is_no_collective(self, text):
    self.assertEqual(lines(text), [])

  def test_tuple_counts_as_its_arrays(self):
    found = lines("""
      %a = (f32[4]{0}, f32[4]{0}, /*index=2*/bf16[2,2]{1,0}) all-reduce(%x, %y)
      %b = ((f32[1], f32[2]), (f32[8], f32[16])) all-gather-start(%x, %y)
    """)
    self.assertEqual(
      found,
      [
        Collective("all-gather", (16,), "f32", 64, 1),
        Collective("all-gather", (8,), "f32", 32, 1),
        Collective("all-reduce", (4,), "f32", 16, 2),
        Collective("all-reduce", (2, 2), "bf16", 8, 1),
      ],
    )

  def test_pieces_of_one_asynchronous_operation_count_once(self):
    found = lines("""
      %a = f32[4]{0} all-gather(%x), channel_id=6, dimensions={0}
      %b = f32[4]{0} all-gather(%y), channel_id=6, dimensions={0}
      %c = f32[4]{0} all-gather(%z), channel_id=7, dimensions={0}
    """)
    self.assertEqual(found, [Collective("all-gather", (4,), "f32", 16, 2)])

  def test_async_wrapper_is_counted_inside(self):
    found = lines("""
      %wrapped (p: f32[4]) -> f32[4] {
        %p = f32[4]{0} parameter(0)
        ROOT %a = f32[4]{0} all-to-all(%p), dimensions={0}
      }

      ENTRY %main (q: f32[4]) -> f32[4] {
        %q = f32[4]{0} parameter(0)
        %s = ((f32[4]), f32[4], u32[]) async-start(%q), calls=%wrapped
        ROOT %d = f32[4]{0} async-done(%s), calls=%wrapped
      }
    """)
    self.assertEqual(found, [Collective("all-to-all", (4,), "f32", 16, 1)])

  def test_loop_without_a_stated_count_reads_its_condition(self):
    text = """
      %body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
        %p = (s32[], f32[4]{0}) parameter(0)
        %a = f32[4]{0} all-reduce(%x), channel_id=1, to_apply=%add
      }

      %cond (q: (s32[], f32[4])) -> pred[] {
        %n = s32[]{:T(128)} constant(6)
        %i = s32[]{:T(128)} get-tuple-element(%q), index=0
        ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
      }

      ENTRY %main (z: f32[4]) -> f32[4] {
        %w = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%body
      }
    """
    self.assertEqual(lines(text)[0].count, 6)
    self.assertEqual(lines(text.replace("LT", "NE"))[0].count, 1)

  def test_a_product_of_gathered_weights_counts_up_by_more_than_one(self):
    text = """
      %body (p: (f32[4], u32[])) -> (f32[4], u32[]) {
        %p = (f32[4]{0}, u32[]) parameter(0)
        %i = u32[] get-tuple-element(%p), index=1
        %one = u32[] constant(1)
        %half = u32[] add(%i, %one)
        %next = u32[] add(%one, %half)
        %x = f32[4]{0} get-tuple-element(%p), index=0
        %a = f32[4]{0} collective-permute(%x), channel_id=1
        ROOT %t = (f32[4]{0}, u32[]) tuple(%a, %next)
      }

      %cond (q: (f32[4], u32[])) -> pred[] {
        %n = u32[] constant(8)
        %j = u32[] get-tuple-element(%q), index=1
        ROOT %lt = pred[] compare(%j, %n), direction=LT
      }

      ENTRY %main (z: f32[4]) -> f32[4] {
        %w = (f32[4]{0}, u32[]) while(%t), condition=%cond, body=%body
      }
    """
    self.assertEqual(lines(text)[0].count, 4)
    slower = text.replace("add(%one, %half)", "copy(%half)")
    self.assertEqual(lines(slower)[0].count, 8)

  def test_operand_of_a_reduce_scatter_counts(self):
    found = lines("""
      %x = f32[16]{0} parameter(0)
      %rs = f32[2]{0} reduce-scatter(%x), dimensions={0}, to_apply=%add
    """)
    self.assertEqual(found, [Collective("reduce-scatter", (16,), "f32", 64, 1)])

  def test_slice_of_a_fused_all_reduce_is_a_reduce_scatter(self):
    found = lines("""
      %all-reduce-scatter.1 (i: f32[8,2]) -> f32[1,2] {
        %r = f32[8,2]{1,0:T(8,128)} all-reduce(%i), channel_id=1
        ROOT %s = f32[1,2]{1,0} dynamic-slice(%r, %k, %z)
      }

      ENTRY %main (z: f32[8,2]) -> f32[1,2] {
        %f = f32[1,2]{1,0} fusion(%z), kind=kCustom, calls=%all-reduce-scatter.1
      }
    """)
    self.assertEqual(
      found, [Collective("reduce-scatter", (8, 2), "f32", 64, 1)]
    )


class CompiledTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

  def text(self, body, shape):
    mapped = jax.shard_map(
      body,
      mesh=self.mesh,
      in_specs=PartitionSpec("x"),
      out_specs=PartitionSpec("x"),
      check_vma=False,
    )
    array = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.jit(mapped).lower(array).compile().as_text()

  def test_each_kind_is_found_with_the_larger_side(self):
    def body(x):  # [1, 64] on each device
      gathered = jax.lax.all_gather(x[0], "x", tiled=True)  # [512]
      scattered = jax.lax.psum_scatter(gathered, "x", tiled=True)  # [64]
      swapped = jax.lax.all_to_all(scattered, "x", 0, 0, tiled=True)
      ring = [(i, (i + 1) % 8) for i in range(8)]
      moved = jax.lax.ppermute(swapped, "x", ring)
      return moved[None] * jax.lax.psum(jnp.sum(moved), "x")

    found = collectives(self.text(body, (8, 64)))
    # CPU may cut an all-to-all into a tuple of its slices.
    by_kind = {c.kind: c.bytes * c.count for c in found}
    self.assertEqual(
      by_kind,
      {
        "all-gather": 2048,
        "reduce-scatter": 2048,
        "all-to-all": 256,
        "collective-permute": 256,
        "all-reduce": 4,
      },
    )

  def test_operation_in_a_scan_counts_as_often_as_it_runs(self):
    def body(x):
      step = lambda h, _: (jnp.tanh(jax.lax.psum(h, "x")), None)
      return jax.lax.scan(step, x, None, length=5)[0]

    self.assertEqual(
      collectives(self.text(body, (8, 32))),
      [Collective("all-reduce", (1, 32), "f32", 128, 5)],
    )

  def test_contraction_of_a_sharded_axis_is_one_all_reduce(self):
    rows = NamedSharding(self.mesh, PartitionSpec("x", None))
    columns = NamedSharding(self.mesh, PartitionSpec(None, "x"))
    whole = NamedSharding(self.mesh, PartitionSpec())
    compiled = (
      jax.jit(jnp.matmul, in_shardings=(columns, rows), out_shardings=whole)
      .lower(*[jax.ShapeDtypeStruct(s, np.float32) for s in ((4, 16), (16, 2))])
      .compile()
    )
    self.assertEqual(
      collectives(compiled.as_text()),
      [Collective("all-reduce", (4, 2), "f32", 32, 1)],
    )

  def test_program_on_one_device_has_none(self):
    compiled = jax.jit(jnp.sin).lower(jnp.ones(4)).compile()
    self.assertEqual(collectives(compiled.as_text()), [])


if __name__ == "__main__":
  absltest.main()
