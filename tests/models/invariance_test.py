"""A reward is of a text, in every family: not of how its row is laid out."""

import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models.hf.config_map import FAMILIES
from tests.models.hf import families_test
from tests.models.samples import start

END = 2  # ends turns and texts, and pads: one id for all three
CHATS = (
  (3, 4, END, 5, 6, 7, END, 3, END),
  (END, END, END, 8, END),
  (9, END),
  (END,),
  (4, 5, 6, 7, 8, 9, 10, 11, 3, END, END),
)
TOLERANCE = 1e-5


def laid_out(chats, start_of, width):
  tokens = np.full((len(chats), width), END, np.int32)
  mask = np.zeros(tokens.shape, bool)
  for row, ids in enumerate(chats):
    at = start_of(width - len(ids), row)
    tokens[row, at : at + len(ids)] = ids
    mask[row, at : at + len(ids)] = True
  return tokens, mask


class InvarianceTest(parameterized.TestCase):
  @parameterized.parameters(*sorted(FAMILIES))
  def test_layout_and_company_never_move_a_reward(self, family):
    config = families_test.tiny(
      family, num_outputs=2, max_positions=40, pad_id=END, eos_id=END
    )
    _, params = start(config)
    with tempfile.TemporaryDirectory() as folder:
      models.save_pretrained(folder, params, config)
      apply, params, _ = models.load_reward_model(folder)
    apply = jax.jit(apply)
    right = lambda spare, row: 0
    expected = np.asarray(apply(params, *laid_out(CHATS, right, 11)))
    gaps = np.abs(expected[:, None] - expected[None]).max(-1)
    self.assertGreater(gaps[~np.eye(len(CHATS), dtype=bool)].min(), 1e-3)
    close = lambda got, want: np.testing.assert_allclose(
      got, want, atol=TOLERANCE, rtol=0
    )
    for width in (11, 12, 19, 37):
      for start_of in (
        right,
        lambda spare, row: spare,
        lambda spare, row: spare // 2,
        lambda spare, row: (row * 7) % (spare + 1),
      ):
        close(apply(params, *laid_out(CHATS, start_of, width)), expected)
    for row, chat in enumerate(CHATS):
      for company in ((), CHATS[:1] * 3, tuple(reversed(CHATS))):
        inputs = laid_out((chat, *company), right, 11)
        close(apply(params, *inputs)[0], expected[row])


if __name__ == "__main__":
  absltest.main()
