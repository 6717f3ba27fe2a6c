"""A config.json of any wrong type is an error with the file, never a crash."""

import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models.hf import config_map
from jaxalign.models.hf.config_map import FAMILIES
from tests.models.hf import families_test

NAN, HUGE = float("nan"), float("1e999")
WRONG = ([], {}, "x", -1, 0, 1.5, True, None, NAN, HUGE, [[]], [None], 10**400)
ROPE = dict(
  rope_type="yarn", factor=4.0, original_max_position_embeddings=16, truncate=1
)


class DamagedConfigTest(parameterized.TestCase):
  @parameterized.parameters(*FAMILIES)
  def test_any_wrong_type_is_one_line(self, family):
    theirs = config_map.to_json(families_test.tiny(family, num_outputs=2))
    if "rope_scaling" in theirs:
      theirs |= {"rope_scaling": ROPE}
    nested = [dict(rope_scaling=ROPE | {key: v}) for key in ROPE for v in WRONG]
    single = [{key: value} for key in theirs for value in WRONG]
    refused = 0
    for changes in single + (nested if "rope_scaling" in theirs else []):
      try:
        config_map.from_json(theirs | changes, "config.json")
      except ValueError as error:
        refused += 1
        self.assertStartsWith(str(error), "config.json: ", changes)
        self.assertNotIn("\n", str(error))
    self.assertGreater(refused, 100)

  @parameterized.parameters(
    ({}, "weight_map must hold a file name per tensor, got 'None'"),
    ({"weight_map": []}, "weight_map must hold"),
    ({"weight_map": {"a": 1}}, "weight_map must hold"),
    ([], "must hold an object, got a list"),
  )
  def test_a_damaged_index_is_one_line(self, content, regex):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps(content))
    with self.assertRaisesRegex(ValueError, f"^{file}: {regex}"):
      models.load_params(folder, families_test.tiny("llama"))


if __name__ == "__main__":
  absltest.main()
