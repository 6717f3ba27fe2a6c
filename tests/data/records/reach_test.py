"""What is said of a place that was not reached."""

import socket
from unittest import mock

import datasets
from absl.testing import absltest, parameterized

from jaxalign.data.records import files, reach, sources
from tests import object_store

NETWORK = "no connection, so check the network first"
UNREACHED = ConnectionError("Couldn't reach it")


def chained(outer, inner):
  outer.__cause__ = inner
  return outer


class ProxyError(Exception):
  """As clients name theirs."""


class ReachTest(parameterized.TestCase):
  @parameterized.parameters(
    (ConnectionError("refused"),),
    (TimeoutError(),),
    (ProxyError("no"),),
    (chained(OSError("no such host"), socket.gaierror(-2, "unknown")),),
    (chained(ValueError("not cached"), chained(OSError(), ProxyError())),),
  )
  def test_without_a_connection_the_network_comes_first(self, error):
    text = reach.why("hub:x", error, "rights: ")
    self.assertRegex(text, "^hub:x: no connection, so check the network first")
    self.assertNotIn("rights: rights", text)

  @parameterized.parameters(
    (PermissionError("403"), "hub:x: rights: 403"),
    (ValueError("two\nlines"), "hub:x: rights: two lines"),
    (RuntimeError(), "hub:x: rights: RuntimeError"),
  )
  def test_with_one_what_was_said(self, error, text):
    self.assertEqual(reach.why("hub:x", error, "rights: "), text)

  def test_a_hub_that_is_not_reached(self):
    with (
      mock.patch.object(datasets, "load_dataset", side_effect=UNREACHED),
      self.assertRaisesRegex(ValueError, f"^hub:a/b:1: {NETWORK}"),
    ):
      next(files.read_hub("a/b", None, "train"))
    names = "get_dataset_config_names"
    with (
      mock.patch.object(datasets, names, side_effect=UNREACHED),
      self.assertRaisesRegex(ValueError, f"^hub:a/b: {NETWORK}"),
    ):
      files.hub_parts("a/b:c")

  @parameterized.parameters("s3://bucket/a.jsonl", "s3://bucket/*.jsonl")
  def test_a_store_that_is_not_reached(self, pattern):
    store = type(object_store.install())
    with (
      mock.patch.object(store, "info", side_effect=UNREACHED),
      mock.patch.object(store, "glob", side_effect=UNREACHED),
      self.assertRaisesRegex(ValueError, f"^source s3.*: {NETWORK}"),
    ):
      sources.files_of(pattern, pattern)


if __name__ == "__main__":
  absltest.main()
