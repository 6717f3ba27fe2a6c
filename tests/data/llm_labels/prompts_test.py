"""Settings of an endpoint, and when two questions are the same."""

import dataclasses

from absl.testing import absltest, parameterized

from jaxalign.data.llm_labels.prompts import EndpointConfig, question_key

CONFIG = EndpointConfig(
  url="https://host/v1",
  model="m",
  key_variable="KEY",
  temperature=0.5,
  max_tokens=16,
  concurrency=8,
  requests_per_minute=60.0,
  timeout_s=1.0,
  max_attempts=3,
  backoff_s=1.0,
  max_backoff_s=10.0,
)
ASKED = [{"role": "user", "content": "a"}]


class QuestionsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({"model": "other"}, ASKED),
    ({"temperature": 0.6}, ASKED),
    ({"max_tokens": 17}, ASKED),
    ({}, [{"role": "system", "content": "a"}]),
    ({}, [{"role": "user", "content": "b"}]),
    ({}, ASKED * 2),
  )
  def test_what_changes_an_answer_changes_the_key(self, change, messages):
    config = dataclasses.replace(CONFIG, **change)
    self.assertNotEqual(
      question_key(config, messages), question_key(CONFIG, ASKED)
    )

  @parameterized.parameters(
    {"concurrency": 1}, {"timeout_s": 9.0}, {"url": "http://elsewhere/v1"}
  )
  def test_what_does_not_changes_nothing(self, **change):
    config = dataclasses.replace(CONFIG, **change)
    self.assertEqual(question_key(config, ASKED), question_key(CONFIG, ASKED))

  @parameterized.parameters(
    ({"url": "ftp://host"}, "url must begin with http"),
    ({"url": "http://"}, "url must begin with http"),
    ({"url": "http://me:secret@host/v1"}, "url must hold no user, password"),
    ({"url": "http://host/v1?key=secret"}, "url must hold no user, password"),
    ({"max_attempts": 0}, "max_attempts must be >= 1, got 0"),
    ({"concurrency": 0}, "concurrency must be >= 1, got 0"),
    ({"timeout_s": 0.0}, "timeout_s must be > 0, got 0.0"),
    ({"temperature": -1.0}, "temperature must be >= 0"),
    ({"requests_per_minute": 0.0}, "requests_per_minute must be > 0, got 0.0"),
  )
  def test_a_value_out_of_range_is_named_and_no_secret_quoted(
    self, change, message
  ):
    with self.assertRaisesRegex(ValueError, message) as caught:
      dataclasses.replace(CONFIG, **change)
    self.assertNotIn("secret", str(caught.exception))


if __name__ == "__main__":
  absltest.main()
