"""Stacked and by layer: the same parameters, there and back."""

import jax
import numpy as np
from absl.testing import absltest

from jaxalign.models import decoder
from tests.models.samples import LLAMA, start


class LayersTest(absltest.TestCase):
  def test_there_and_back(self):
    _, params = start(LLAMA)
    each = decoder.unstack_layers(params)
    self.assertLen(each["layers"], LLAMA.num_layers)
    np.testing.assert_array_equal(
      each["layers"][1]["mlp"]["up"]["kernel"],
      params["layers"]["mlp"]["up"]["kernel"][1],
    )
    jax.tree.map(
      np.testing.assert_array_equal, decoder.stack_layers(each), params
    )

  def test_what_is_in_the_form_asked_for_is_left_alone(self):
    _, params = start(LLAMA)
    self.assertIs(decoder.stack_layers(params), params)
    each = decoder.unstack_layers(params)
    self.assertIs(decoder.unstack_layers(each), each)


if __name__ == "__main__":
  absltest.main()
