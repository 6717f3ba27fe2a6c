"""The text that Prometheus reads."""

import importlib.util
import unittest

from absl.testing import absltest

from jaxalign.experiments.policy import served_metrics

COUNTS = {"texts": 12, "failed": 1}
GAUGES = {"waiting_texts": 3, "ready": 1}


def observed():
  found = served_metrics.Observed()
  found.add("/v1/rewards", 200, 0.03)
  found.add("/v1/rewards", 200, 3.0)
  found.add("/v1/rewards", 503, 100.0)
  found.add("/health", 200, 0.001)
  return found


class ServedMetricsTest(absltest.TestCase):
  def test_counters_and_gauges(self):
    text = observed().exposed(COUNTS, GAUGES)
    lines = text.splitlines()
    self.assertTrue(text.endswith("\n"))
    for line in (
      "# TYPE jaxalign_texts_total counter",
      "jaxalign_texts_total 12",
      "# TYPE jaxalign_waiting_texts gauge",
      "jaxalign_waiting_texts 3",
      'jaxalign_http_answers_total{path="/v1/rewards",status="200"} 2',
      'jaxalign_http_answers_total{path="/v1/rewards",status="503"} 1',
    ):
      self.assertIn(line, lines)

  def test_a_histogram_is_cumulative(self):
    lines = observed().exposed({}, {}).splitlines()
    name = 'jaxalign_http_seconds_bucket{path="/v1/rewards",le="'
    numbers = [
      int(line.rpartition(" ")[2]) for line in lines if line.startswith(name)
    ]
    self.assertEqual(numbers, [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3])
    self.assertIn(f'{name}0.05"}} 1', lines)
    self.assertIn(f'{name}+Inf"}} 3', lines)
    self.assertIn('jaxalign_http_seconds_count{path="/v1/rewards"} 3', lines)
    self.assertIn(
      'jaxalign_http_seconds_sum{path="/v1/rewards"} 103.030000', lines
    )

  @unittest.skipUnless(
    importlib.util.find_spec("prometheus_client"), "needs prometheus_client"
  )
  def test_its_own_parser_reads_it(self):
    from prometheus_client import parser

    text = observed().exposed(COUNTS, GAUGES)
    families = {
      each.name: each for each in parser.text_string_to_metric_families(text)
    }
    self.assertEqual(families["jaxalign_texts"].samples[0].value, 12)
    self.assertEqual(families["jaxalign_http_seconds"].type, "histogram")
    self.assertEqual(families["jaxalign_ready"].samples[0].value, 1)


if __name__ == "__main__":
  absltest.main()
