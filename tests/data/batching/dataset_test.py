"""Every kind of rows offers what batches ask for."""

import inspect

from absl.testing import absltest, parameterized

from jaxalign.data.batching import (
  loader,
  pair_dataset,
  prompt_dataset,
  ranking_dataset,
  sft_dataset,
)
from jaxalign.data.batching.dataset import Dataset

METHODS = ("hold", "collate", "__len__")


class DatasetTest(parameterized.TestCase):
  @parameterized.parameters(
    pair_dataset.PairDataset,
    sft_dataset.PackedDataset,
    ranking_dataset.ResponseDataset,
    prompt_dataset.PromptDataset,
    loader.Selection,
  )
  def test_it_has_the_same_methods_and_names(self, kind):
    for name in METHODS:
      asked = inspect.signature(Dataset.__dict__[name])
      given = inspect.signature(kind.__dict__[name])
      self.assertEqual(list(given.parameters), list(asked.parameters), name)
    fields = {*kind.__dataclass_fields__, *kind.__dict__}
    self.assertContainsSubset(["source", "source_names", "widths"], fields)


if __name__ == "__main__":
  absltest.main()
