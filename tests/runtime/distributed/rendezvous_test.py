"""The head count before processes join: who is missing, who is wrong."""

import socket
import threading
import time

from absl.testing import absltest

from jaxalign.runtime.distributed import rendezvous


def free_port():
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]


def call(port, results, process_id, num_processes, timeout_s):
  try:
    rendezvous.wait_for_all(
      f"127.0.0.1:{port}",
      num_processes=num_processes,
      process_id=process_id,
      timeout_s=timeout_s,
    )
    results[threading.current_thread().name] = None
  except (TimeoutError, ValueError) as error:
    results[threading.current_thread().name] = error


def call_together(calls):
  """Runs rendezvous (process_id, num_processes, timeout_s) in threads."""
  port, results = free_port(), {}
  threads = [
    threading.Thread(
      target=call, args=(port, results, *c), name=str(i), daemon=True
    )
    for i, c in enumerate(calls)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=30)
  return [results[str(i)] for i in range(len(calls))]


class RendezvousTest(absltest.TestCase):
  def test_returns_everywhere_once_all_are_there(self):
    self.assertEqual(
      call_together([(1, 3, 20), (0, 3, 20), (2, 3, 20)]), [None] * 3
    )

  def test_names_the_missing_process_on_every_host(self):
    errors = call_together([(0, 4, 1.5), (2, 4, 1.5)])
    for error in errors:
      self.assertIsInstance(error, TimeoutError)
      self.assertRegex(str(error), r"not arrived: 1, 3\. Here are: 0 on .*2 on")

  def test_missing_coordinator_is_named(self):
    (error,) = call_together([(1, 2, 0.5)])
    self.assertIsInstance(error, TimeoutError)
    self.assertRegex(str(error), r"process 1 on .* has not reached process 0")

  def test_one_number_given_twice_is_named(self):
    errors = call_together([(0, 3, 20), (1, 3, 20), (1, 3, 20)])
    for error in errors:
      self.assertRegex(str(error), "process_id 1 is taken twice")

  def test_different_totals_are_named(self):
    for error in call_together([(0, 2, 20), (1, 3, 20)]):
      self.assertRegex(str(error), "process 1 on .* expects 3 processes")

  def test_strangers_and_the_dead_do_not_count(self):
    port, results = free_port(), {}
    server = threading.Thread(
      target=call, args=(port, results, 0, 3, 2), name="server", daemon=True
    )
    server.start()
    report = b'{"process_id": 1, "num_processes": 3, "host": "crashed"}\n'
    deadline = time.monotonic() + 20
    for said in (b"GET / HTTP/1.1\r\n", b'{"process_id": 2}\n', b"", report):
      while True:
        try:
          stranger = socket.create_connection(("127.0.0.1", port), 1)
          break
        except ConnectionRefusedError:
          self.assertLess(time.monotonic(), deadline)
      with stranger:
        stranger.sendall(said)
    server.join(timeout=30)
    self.assertRegex(str(results["server"]), "not arrived: 1, 2.")

  def test_coordinator_needs_a_port(self):
    with self.assertRaisesRegex(ValueError, "HOST:PORT, got 'tpu-0'"):
      rendezvous.wait_for_all(
        "tpu-0", num_processes=2, process_id=0, timeout_s=1
      )


if __name__ == "__main__":
  absltest.main()
