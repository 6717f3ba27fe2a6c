"""Style statistics of responses: length and most telling words."""

from collections.abc import Sequence

import numpy as np

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines

NUM_ROUNDS = 4  # of subspace iteration; style has few strong directions


def style_features(
  records: Sequence[Record], *, num_words: int = 16, seed: int = 0
) -> np.ndarray:
  """Style of the first response minus that of the second.

  The first feature is the logarithm of the ratio of lengths in characters. The
  others are principal directions of the words and pairs of words in which the
  responses differ, found without labels. Each is scaled to a mean square of 1.

  Args:
    records: pairs.
    num_words: principal directions; those beyond the rank of the data are 0.
    seed: of the search for the directions, which only their order of magnitude
      and sign depend on.

  Returns:
    Features, float64 [N, 1 + num_words].
  """
  lengths = np.array(
    [
      [1 + len(text_of(text)) for text in record.responses]
      for record in records
    ]
  )
  ratio = np.log(lengths[:, 0] / lengths[:, 1])
  matrix = baselines.gap_matrix(records)
  # Only words that occur: the hash table is mostly empty.
  used = np.unique(matrix.columns)
  rank = min(num_words, len(used), len(records))
  basis = np.random.default_rng(seed).normal(size=(len(used), rank))
  full = np.zeros(baselines.NUM_FEATURES)
  directions = np.zeros((len(records), num_words))
  for _ in range(NUM_ROUNDS):
    basis, _ = np.linalg.qr(basis)
    for k in range(rank):
      full[used] = basis[:, k]
      directions[:, k] = matrix.times(full)
    basis = np.stack(
      [matrix.transposed_times(directions[:, k])[used] for k in range(rank)],
      axis=1,
    )
  features = np.concatenate([ratio[:, None], directions], axis=1)
  scale = np.sqrt((features**2).mean(axis=0))
  # Rounding of a rank-deficient direction is not a style.
  scale[scale < 1e-9] = np.inf
  return features / scale
