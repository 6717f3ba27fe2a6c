"""Adapters of the real folders, against the row counts their READMEs give."""

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import registry
from jaxalign.data.records import reader
from tests.data import real_data

# folder: pairs in train (None: no such file) and test.
ROWS = {
  "cnndm_summaries": (1571, 314),
  "convarg": (11136, 2121),
  "hh_harmless": (1648, 327),
  "hh_helpful": (1711, 308),
  "hhh_alignment": (None, 168),
  "humour": (19928, 2165),
  "llmbar": (None, 298),
  "mt_bench": (576, 187),
  "pandalm": (686, 112),
  "qa_feedback": (1876, 357),
}


class AdaptersTest(parameterized.TestCase):
  def test_unknown_name_lists_the_known_ones(self):
    with self.assertRaisesRegex(ValueError, "unknown adapter 'nope'; allowed:"):
      registry.get("nope")
    self.assertIs(registry.find("nope"), registry.PLAIN)

  def test_every_folder_of_pairs_is_here(self):
    folder = real_data.folder("")
    found = {path.parent.name for path in folder.glob("*/pairs_*.jsonl.gz")}
    self.assertEqual(found, set(ROWS))
    self.assertContainsSubset(found, registry.ADAPTERS)

  @parameterized.parameters(sorted(ROWS))
  def test_reads_every_row(self, name):
    folder = real_data.folder(name)
    for split, expected in zip(("train", "test"), ROWS[name], strict=True):
      if expected is None:
        continue
      records, report = reader.read_records(
        [str(folder / f"pairs_{split}.jsonl.gz")]
      )
      (source,) = report.sources
      self.assertEqual(source.read, expected)
      self.assertEqual(source.skipped, 0)
      self.assertLen(records, source.kept)
      # Only pandalm kept the empty answers of its models.
      lost = {"pandalm": {"train": 40, "test": 3}}.get(name, {}).get(split, 0)
      self.assertEqual(sum(source.dropped.values()), lost)
      self.assertEqual({record.source for record in records}, {name})
      # A vote share is no gap in reward units.
      self.assertEqual({record.margin for record in records}, {None})

  def test_votes_and_their_share_agree(self):
    folder = real_data.folder("convarg")
    records, _ = reader.read_records([f"{folder}/pairs_test.jsonl.gz"])
    for record in records:
      share = (record.votes_chosen - record.votes_rejected) / record.n_votes
      self.assertAlmostEqual(record.strength, share, delta=1e-4)
      self.assertAlmostEqual(record.target_prob, (1 + share) / 2, delta=1e-9)


if __name__ == "__main__":
  absltest.main()
