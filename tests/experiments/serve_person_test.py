"""A new person's few pairs in a request to `serve`."""

import httpx
import numpy as np
from absl.testing import absltest

from jaxalign.experiments.reward_model import user_assignment
from tests.experiments.serve_test import lengths, post, serving, source_of
from tests.runtime.reward_sources import model_test


class ServePersonTest(absltest.TestCase):
  def test_a_persons_pairs_give_their_own_mixture(self):
    # The person prefers the longer text, which the first head does too.
    pairs = [
      {"prompt": "p", "chosen": "aaa", "rejected": "b"},
      {"prompt": "p", "chosen": "cc", "rejected": "d"},
    ]
    body = {"prompts": ["p"], "responses": ["xy"]}
    ask = lambda url, person: httpx.post(
      f"{url}/v1/rewards", json=body | {"person": person}
    )
    source = source_of(lengths)
    with serving(source, max_texts=5, max_waiting=6) as url:
      plain, placed = post(url, ["xy"]).json(), ask(url, pairs).json()
      refused = [
        ask(url, "ann"),
        ask(url, [{"prompt": "p", "chosen": "a"}]),
        ask(url, pairs + pairs[:1]),
      ]
      none = ask(url, [])
    likely = np.array([0.75, 0.25]) * [
      1 / (1 + np.exp(-2)) / (1 + np.exp(-1)),
      1 / (1 + np.exp(2)) / (1 + np.exp(1)),
    ]
    shares = likely / likely.sum()
    np.testing.assert_allclose(placed["person"]["weights"], shares)
    np.testing.assert_allclose(
      placed["person"]["rewards"], [2 * shares[0] - 2 * shares[1]]
    )
    self.assertEqual(placed["rewards"], plain["rewards"])
    self.assertNotIn("person", plain)
    self.assertEqual(none.json(), plain)
    self.assertEqual([r.status_code for r in refused], [400, 400, 413])
    self.assertIn("pair 0 of person must be an object", refused[1].text)
    # In raw units, a gap of the first head says twice as much.
    source.units = (2.0, 1.0)
    with serving(source, max_texts=5, max_waiting=6) as url:
      sure = ask(url, pairs).json()["person"]["weights"]
    self.assertGreater(sure[0], shares[0])
    source.mixture_weights = None
    with serving(source) as url:
      reply = ask(url, pairs[:1])
    self.assertEqual(reply.status_code, 400)
    self.assertIn("person needs a model with a head per group", reply.text)

  def test_a_personal_model_answers_with_the_reward_at_the_place(self):
    # Calibrated, in units of 2: what places a person is the raw reward.
    source = model_test.open_source(
      model_test.described(
        heads=["shared", "factor_0"],
        readout="low_rank",
        mixture_weights=None,
        calibration={"mean": [1.0], "std": [2.0]},
      )
    )
    raw = model_test.open_source(
      model_test.described(mixture_weights=None), calibrated=False
    )
    pairs = [
      {"prompt": "p", "chosen": " aaa", "rejected": " b"},
      {"prompt": "p", "chosen": " cc", "rejected": " d?"},
      {"prompt": "p", "chosen": " e" * 5, "rejected": " d?"},
    ]
    body = {"prompts": ["p", "q"], "responses": [" xy", " z"], "person": pairs}
    options = dict(max_texts=9, max_waiting=9, max_bytes=9000)
    with serving(source, max_waiting_bytes=9000, **options) as url:
      reply = httpx.post(f"{url}/v1/rewards", json=body, timeout=60).json()
    sides = [pair[side] for pair in pairs for side in ("chosen", "rejected")]
    said = raw(["p"] * 6, sides).astype(np.float64)
    told = raw(body["prompts"], body["responses"]).astype(np.float64)
    gaps = said[0::2] - said[1::2]
    (place,) = user_assignment.place_point(gaps[:, 0], gaps[:, 1:])
    self.assertGreater(abs(place), 1e-3)
    self.assertEqual(reply["names"], ["reward"])
    np.testing.assert_allclose(
      np.array(reply["rewards"])[:, 0], (told[:, 0] - 1) / 2, atol=1e-5
    )
    np.testing.assert_allclose(reply["person"]["place"], [place], atol=1e-4)
    np.testing.assert_allclose(
      reply["person"]["rewards"],
      (told[:, 0] + told[:, 1] * place - 1) / 2,
      atol=1e-4,
    )


if __name__ == "__main__":
  absltest.main()
