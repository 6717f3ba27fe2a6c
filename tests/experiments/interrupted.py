"""Runs that die while they write a row of metrics, and go on afterwards."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import metric_writer


class Killed(Exception):
  """The end of a run that nobody expected."""


@contextlib.contextmanager
def once_written(
  test: absltest.TestCase, *, step: int | None = None, row: int | None = None
) -> Iterator[None]:
  """Ends the run inside once its metrics are written.

  Args:
    test: asserts that the run got so far.
    step: of the row after which the run dies.
    row: its number instead, from 1, where steps repeat.
  """
  original, count = metric_writer.MetricWriter.write, [0]

  def dies(writer, at, metrics):
    original(writer, at, metrics)
    count[0] += 1
    if at == step or count[0] == row:
      raise Killed

  with (
    mock.patch.object(metric_writer.MetricWriter, "write", dies),
    test.assertRaises(Killed),
  ):
    yield


def assert_resumes(
  test: absltest.TestCase,
  run: Callable[[epath.Path], object],
  straight: epath.Path,
  names: Sequence[str],
  **when: int,
) -> epath.Path:
  """Asserts that a killed and resumed run is bit-for-bit identical.

  Args:
    test: the test.
    run: runs the stage in a workdir.
    straight: workdir of the run that nothing interrupted.
    names: of files in it.
    **when: the run dies, as in `once_written`.

  Returns:
    The workdir of the interrupted run.
  """
  workdir = epath.Path(tempfile.mkdtemp())
  with once_written(test, **when):
    run(workdir)
  run(workdir)
  for name in names:
    test.assertEqual(
      (workdir / name).read_bytes(), (straight / name).read_bytes(), name
    )
  return workdir
