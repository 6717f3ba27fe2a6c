"""Rankings, best-of-n choices and rated responses all the way to a batch."""

import numpy as np
from absl.testing import absltest

from jaxalign.data.batching import loader, ranking_dataset
from jaxalign.data.records.record import Record, parse_record
from jaxalign.data.tokenization import tokenizer_files

PAD = 256
ROWS = (
  # A full ranking with two attributes, one of them of the first alone.
  {
    "prompt": "Q",
    "responses": ["best", "mid", "low"],
    "ratings": {"clear": [3, 2, 1], "kind": 5},
    "source": "ranked",
  },
  # The best of four.
  {
    "prompt": "Q",
    "responses": ["a", "b", "c", "d"],
    "num_ranked": 1,
    "source": "choice",
    "group": "g",
  },
  # A rated response with its votes.
  {
    "prompt": "Q",
    "responses": ["one"],
    "label_votes": [1, 0, 3],
    "source": "rated",
  },
  # A pair with distributions that someone computed.
  {
    "prompt": "Q",
    "chosen": "yes",
    "rejected": "no",
    "labels": [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]],
    "source": "ranked",
  },
)


# Of two records with up to 4 responses of 8 tokens, 3 classes, 2 attributes.
SHAPES = {
  "tokens": (np.int32, 4, 8),
  "mask": (np.bool_, 4, 8),
  "prompt_lengths": (np.int32, 4),
  "response_where": (np.bool_, 4),
  "num_ranked": (np.int32,),
  "labels": (np.float32, 4, 3),
  "label_votes": (np.int32, 4, 3),
  "label_where": (np.bool_, 4),
  "ratings": (np.float32, 4, 2),
  "rating_where": (np.bool_, 4, 2),
  "source": (np.int32,),
  "group": (np.int32,),
  "where": (np.bool_,),
  "row": (np.int32,),
  "index": (np.int32,),
}


def dataset(rows=ROWS, **kwargs):
  return ranking_dataset.encode_responses(
    [parse_record(row, where="f:1") for row in rows],
    tokenizer_files.byte_tokenizer(),
    max_length=16,
    **kwargs,
  )


class ResponsesTest(absltest.TestCase):
  def test_rankings_and_choices(self):
    data = dataset()
    self.assertEqual((len(data), data.max_responses), (4, 4))
    np.testing.assert_array_equal(data.num_ranked, [3, 1, 1, 2])
    np.testing.assert_array_equal(data.first, [0, 3, 7, 8, 10])
    self.assertEqual(data.source_names, ("choice", "ranked", "rated"))
    np.testing.assert_array_equal(data.source, [1, 0, 2, 1])
    np.testing.assert_array_equal(data.group, [-1, 0, -1, -1])
    np.testing.assert_array_equal(data.widths, [7, 4, 6, 6])

  def test_attributes(self):
    data = dataset()
    self.assertEqual(data.attributes, ("clear", "kind"))
    np.testing.assert_array_equal(
      data.ratings[:4], [[3, 5], [2, 0], [1, 0], [0, 0]]
    )
    np.testing.assert_array_equal(
      data.rating_where[:4], [[1, 1], [1, 0], [1, 0], [0, 0]]
    )

  def test_labels_and_their_votes(self):
    data = dataset()
    np.testing.assert_array_equal(
      data.label_where, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    )
    np.testing.assert_array_equal(data.label_votes[7], [1, 0, 3])
    np.testing.assert_array_equal(data.labels[7], [0.25, 0, 0.75])
    np.testing.assert_array_equal(data.label_votes[8:], np.zeros((2, 3)))
    np.testing.assert_allclose(data.labels[9], [0.1, 0.2, 0.7])

  def test_a_batch_holds_the_texts_it_says(self):
    data = dataset()
    batch = data.collate(np.array([0, 2]), 8, PAD)
    np.testing.assert_array_equal(
      batch["response_where"], [[1, 1, 1, 0], [1, 0, 0, 0]]
    )
    text = lambda n, k: bytes(
      batch["tokens"][n, k][batch["mask"][n, k]][1:-1].tolist()
    )
    self.assertEqual(
      [text(0, k) for k in range(3)], [b"Qbest", b"Qmid", b"Qlow"]
    )
    # What fills up is the first response again, so it has tokens.
    self.assertEqual((text(0, 3), text(1, 3)), (b"Qbest", b"Qone"))
    np.testing.assert_array_equal(
      batch["label_where"], [[0, 0, 0, 0], [1, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
      batch["rating_where"][0], [[1, 1], [1, 0], [1, 0], [0, 0]]
    )

  def test_shapes_are_as_announced(self):
    data = dataset()
    for shuffle in (True, False):
      for batch in loader.Batches(
        data,
        batch_size=2,
        buckets=(8, 16),
        pad_id=PAD,
        seed=0,
        shuffle=shuffle,
      ):
        self.assertEqual([*batch], [*SHAPES])
        for name, (kind, *shape) in SHAPES.items():
          self.assertEqual(batch[name].shape, (2, *shape), name)
          self.assertEqual(batch[name].dtype, kind, name)

  def test_without_labels_or_ratings(self):
    data = dataset(ROWS[1:2])
    self.assertEqual(data.labels.shape, (4, 0))
    self.assertEqual(data.ratings.shape, (4, 0))
    batch = data.collate(np.array([0]), 8, PAD)
    self.assertFalse(batch["label_where"].any())

  def test_on_disk_equals_in_memory(self):
    memory, disk = dataset(), dataset(on_disk=True)
    for name, array in memory.collate(np.arange(4), 16, PAD).items():
      np.testing.assert_array_equal(
        disk.collate(np.arange(4), 16, PAD)[name], array, name
      )

  def test_classes_must_be_the_same(self):
    other = {"prompt": "Q", "responses": ["x"], "labels": [0.5, 0.5]}
    with self.assertRaisesRegex(ValueError, "got 2 and 3 classes"):
      dataset((*ROWS, other))

  def test_names_can_be_fixed(self):
    data = dataset(ROWS[:1], source_names=("other", "ranked"))
    np.testing.assert_array_equal(data.source, [1])
    record = Record(prompt="Q", responses=("a",))
    data = ranking_dataset.encode_responses(
      [record], tokenizer_files.byte_tokenizer(), max_length=16
    )
    self.assertEqual(data.source_names, ("unnamed",))


if __name__ == "__main__":
  absltest.main()
