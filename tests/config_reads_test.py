"""The recorder of config reads, on a config of which half is read."""

import copy
import dataclasses

from absl.testing import absltest

from tests import config_reads


@dataclasses.dataclass(frozen=True)
class Inner:
  size: int
  rate: float

  def __post_init__(self):
    if self.size < 0:
      raise ValueError("size")


@dataclasses.dataclass(frozen=True)
class Outer:
  seed: int
  inner: Inner


class ConfigReadsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.config = Outer(0, Inner(1, 0.5))

  def test_forgets_what_is_read(self):
    with config_reads.recorded(self.config) as unread:
      self.assertEqual(unread, {"seed", "inner", "inner.size", "inner.rate"})
      self.assertEqual(self.config.inner.rate, 0.5)
    self.assertEqual(unread, {"seed", "inner.size"})

  def test_copies_and_self_checks_are_no_readers(self):
    with config_reads.recorded(self.config) as unread:
      dataclasses.asdict(self.config)
      dataclasses.replace(self.config)
      copy.deepcopy(self.config)
      self.assertNotEqual(self.config, Outer(0, Inner(2, 0.1)))
      hash(self.config)
      repr(self.config)
    self.assertLen(unread, 4)

  def test_leaves_the_classes_as_they_were(self):
    with config_reads.recorded(self.config):
      pass
    self.assertNotIn("__getattribute__", Inner.__dict__)


if __name__ == "__main__":
  absltest.main()
