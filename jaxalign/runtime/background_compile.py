"""Background compilation: a program is compiled while a run prepares its data.

XLA compiles without Python's lock. A step that is compiled on a thread of its
own is ready, or nearly so, when the parameters are drawn and the first batch
is there.
"""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import jax


class BackgroundCompiled:
  """A jitted function of which one program is compiled on another thread.

  It is called like the function. The first call with arguments of the shapes
  and types that were announced waits for the program; others, such as those of
  another bucket of lengths, go to the function itself. An error of the compiler
  is raised by that first call.
  """

  def __init__(self, function: Callable[..., Any], *shapes: Any):
    """Begins to compile.

    Args:
      function: under `jax.jit`. One that cannot be lowered, as under
        `jax.pmap`, is called as it is, and so is every function where there are
        several processes, which have to compile at the same time.
      *shapes: its arguments, abstract, with shardings.
    """
    self._function = function
    self._shapes = _shapes(shapes)
    self._program: concurrent.futures.Future[Callable[..., Any]] | None = None
    if not hasattr(function, "lower") or jax.process_count() > 1:
      return
    pool = concurrent.futures.ThreadPoolExecutor(1, "compile")
    self._program = pool.submit(lambda: function.lower(*shapes).compile())
    pool.shutdown(wait=False)  # the thread ends with its work

  def __call__(self, *args: Any) -> Any:
    """Calls the program, or the function for arguments of other shapes."""
    if self._program is None or _shapes(args) != self._shapes:
      return self._function(*args)
    return self._program.result()(*args)


def _shapes(args: tuple[Any, ...]) -> list[tuple[tuple[int, ...], Any]]:
  return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(args)]
