"""A new person's few pairs in `score`: their own mixture of a model's heads."""

import json
import pathlib
import tempfile

import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign import models
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import score
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reward_model import user_assignment
from jaxalign.runtime.io import artifact
from tests import shipped
from tests.models.hf import families_test
from tests.models.samples import start

ASKED = [
  {"prompt": "Q:", "chosen": " yes, do", "rejected": " no"},
  {"prompt": "Why?", "chosen": " so", "rejected": " because of that"},
]
OWN = [
  {"prompt": "Q:", "chosen": f" a{i}", "rejected": f" {i} bb", "annotator": "u"}
  for i in range(4)
]


class PlacePersonTest(parameterized.TestCase):
  def test_by_hand(self):
    gaps = np.array([[2.0, -1.0], [0.5, 0.5]])
    sigmoid = 1 / (1 + np.exp(-gaps))
    likely = np.array([0.3, 0.7]) * sigmoid.prod(axis=0)
    np.testing.assert_allclose(
      user_assignment.place_person(gaps, (0.3, 0.7)), likely / likely.sum()
    )

  def test_edges(self):
    place = user_assignment.place_person
    np.testing.assert_allclose(place(np.zeros((0, 2)), (0.3, 0.7)), [0.3, 0.7])
    np.testing.assert_allclose(
      place(np.array([[-1e4, 1e4]]), (0.999, 0.001)), [0.0, 1.0]
    )
    np.testing.assert_allclose(place(np.array([[-9.0, 9.0]]), (1, 0)), [1, 0])


class ScoreTest(parameterized.TestCase):
  def run_score(
    self, asked=ASKED, num_outputs=2, person=(), kind=None, calibrated=False
  ):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    network = families_test.tiny(
      "llama", vocab_size=259, max_positions=64, pad_id=256, num_layers=1,
      num_outputs=num_outputs,
    )  # fmt: skip
    _, params = start(network)
    models.save_pretrained(folder / "model", params, network)
    tokenizer_files.byte_tokenizer().save(folder / "model")
    if kind is not None:
      described = artifact.Description(
        kind="reward",
        heads=("shared", "factor_0", "factor_1")[:num_outputs],
        max_length=64,
        calibration={"mean": [0.5], "std": [2.0]},
        utilities=None,
        mixture_weights=None,
        provenance={},
        readout=kind,
      )
      tokenizer = tokenizer_files.byte_tokenizer()
      artifact.save(folder / "model", params, network, tokenizer, described)
    for name, rows in (("asked", asked), ("own", person)):
      text = "".join(json.dumps(row) + "\n" for row in rows)
      (folder / f"{name}.jsonl").write_text(text)
    cfg = shipped.config("score", "smoke")
    cfg.mesh.data = 1
    cfg.model, cfg.calibrated = str(folder / "model"), calibrated
    cfg.data.update(
      eval_files=(f"{folder}/asked.jsonl",), max_length=64, buckets=(64,)
    )
    if person:
      cfg.person_files = (f"{folder}/own.jsonl",)
    score.run(configuration.to_dataclass(score.Config, cfg), epath.Path(folder))
    lines = (folder / "scores.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]

  def test_rewards_are_the_persons_mixture_of_heads(self):
    lines = self.run_score(person=OWN)
    alone = self.run_score(asked=OWN)
    self.assertNotIn("person_rewards", alone[0])
    gaps = np.array([np.subtract(*line["rewards"]) for line in alone])
    shares = user_assignment.place_person(gaps, (0.5, 0.5))
    self.assertGreater(abs(shares[0] - 0.5), 1e-3)
    for line in lines:
      np.testing.assert_allclose(
        line["person_rewards"], np.array(line["rewards"]) @ shares, rtol=1e-5
      )

  @parameterized.parameters("low_rank", "ideal_points")
  def test_a_personal_model_gives_the_reward_at_the_persons_place(self, kind):
    given = dict(num_outputs=3, kind=kind)
    lines = self.run_score(person=OWN, **given)
    outputs = lambda asked: np.concatenate(
      [line["rewards"] for line in self.run_score(asked=asked, num_outputs=3)]
    )
    said, told = outputs(OWN), outputs(ASKED)
    common = lambda x: (
      x[:, 0] - (kind == "ideal_points") * (x[:, 1:] ** 2).sum(1) / 2
    )
    gap = lambda x: x[0::2] - x[1::2]
    cost = lambda a: (
      np.logaddexp(0, -gap(common(said)) - gap(said[:, 1:]) @ a).sum()
      + a @ a / 2
    )
    place = scipy.optimize.minimize(cost, np.zeros(2), tol=1e-12).x
    self.assertGreater(np.abs(place).max(), 1e-2)
    own = common(told) + told[:, 1:] @ place
    np.testing.assert_allclose(
      np.concatenate([line["person_rewards"] for line in lines]),
      own,
      atol=1e-4,
    )
    shared = np.concatenate([line["rewards"] for line in lines])
    np.testing.assert_allclose(shared[:, 0], common(told), atol=1e-5)
    lines = self.run_score(person=OWN, calibrated=True, **given)
    np.testing.assert_allclose(
      np.concatenate([line["person_rewards"] for line in lines]),
      (own - 0.5) / 2,
      atol=1e-4,
    )

  def test_refusals(self):
    with self.assertRaisesRegex(ValueError, "person_files mix the heads"):
      self.run_score(num_outputs=1, person=OWN)
    two = [OWN[0], OWN[1] | {"annotator": "v"}]
    with self.assertRaisesRegex(ValueError, "got 2 pairs by 2"):
      self.run_score(person=two)


if __name__ == "__main__":
  absltest.main()
