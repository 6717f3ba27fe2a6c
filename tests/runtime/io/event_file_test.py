"""Event files hold what TensorBoard reads, as its protocol buffers say."""

import math
import pathlib
import struct
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from tensorboardX import crc32c as reference
from tensorboardX.proto import event_pb2

from jaxalign.runtime.io import event_file


def read(path):
  """The events of a file whose checksums and lengths all agree."""

  def unmasked(crc):
    turned = (crc - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF

  data, at, found = pathlib.Path(path).read_bytes(), 0, []
  while at < len(data):
    size, of_size = struct.unpack_from("<QI", data, at)
    content = data[at + 12 : at + 12 + size]
    (of_content,) = struct.unpack_from("<I", data, at + 12 + size)
    assert unmasked(of_size) == reference.crc32c(data[at : at + 8])
    assert unmasked(of_content) == reference.crc32c(content)
    found.append(event_pb2.Event.FromString(content))
    at += 16 + size
  return found


class ChecksumTest(parameterized.TestCase):
  @parameterized.parameters(
    (b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA)
  )
  def test_vectors_of_the_standard(self, content, expected):
    self.assertEqual(event_file.crc32c(content), expected)

  def test_equals_another_implementation(self):
    rng = np.random.default_rng(0)
    for size in (1, 7, 300):
      content = rng.bytes(size)
      self.assertEqual(event_file.crc32c(content), reference.crc32c(content))


class EventFileTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def written(self, rows, first_step=0):
    file = event_file.EventFile(
      self.folder, first_step=first_step, suffix=".of_a_test"
    )
    for step, scalars in rows:
      file.write(step, scalars)
    file.flush()
    file.close()
    file.close()
    (path,) = self.folder.iterdir()
    self.assertRegex(path.name, r"^events\.out\.tfevents\.\d{10}\..+of_a_test$")
    return read(path)

  def test_begins_with_version_and_point_of_resumption(self):
    version, start = self.written([], first_step=301)
    self.assertEqual(version.file_version, "brain.Event:2")
    self.assertEqual(start.session_log.status, event_pb2.SessionLog.START)
    self.assertEqual([version.step, start.step], [301, 301])
    self.assertGreater(start.wall_time, 1.6e9)

  def test_scalars_are_those_that_were_given(self):
    rows = [(0, {"train/loss": 0.1, "b": -3.0}), (2**40, {"é x/y": 1.0})]
    _, _, *found = self.written(rows)
    self.assertEqual([event.step for event in found], [0, 2**40])
    values = [
      [(v.tag, v.simple_value) for v in event.summary.value] for event in found
    ]
    first = [("b", -3.0), ("train/loss", float(np.float32(0.1)))]
    self.assertEqual(values, [first, [("é_x/y", 1.0)]])

  def test_numbers_beyond_float32_and_non_finite_ones(self):
    given = {"a": 1e300, "b": -1e300, "c": math.inf, "d": math.nan}
    *_, event = self.written([(1, given)])
    found = [value.simple_value for value in event.summary.value]
    np.testing.assert_array_equal(
      found, [math.inf, -math.inf, math.inf, math.nan]
    )

  def test_a_long_row_has_a_length_of_several_bytes(self):
    given = {f"train/utility/group_{k:03}": float(k) for k in range(300)}
    *_, event = self.written([(1, given)])
    self.assertLen(event.summary.value, 300)
    self.assertEqual(event.summary.value[299].simple_value, 299)


if __name__ == "__main__":
  absltest.main()
