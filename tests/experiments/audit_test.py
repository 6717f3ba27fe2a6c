"""The audit of crowds and of small files, every number known beforehand."""

import json
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.records.record import Record
from jaxalign.data.synthetic import crowd, oracle
from jaxalign.experiments import audit
from jaxalign.experiments.common import config
from jaxalign.experiments.reports import audit as pages
from jaxalign.experiments.reports import group_structure
from tests import shipped


def run(train=(), held_out=(), **changes):
  """eval.json and the page of an audit of these sources."""
  cfg = shipped.config("audit", "smoke")
  cfg.data.update(train_files=train, eval_files=held_out)
  for key, value in changes.items():
    section, _, leaf = key.rpartition("__")
    cfg[section][leaf] = value
  workdir = epath.Path(tempfile.mkdtemp())
  audit.run(config.to_dataclass(audit.Config, cfg), workdir)
  page = (workdir / "report.html").read_text()
  return json.loads((workdir / "eval.json").read_text()), page


def write(*rows) -> str:
  path = epath.Path(tempfile.mkdtemp()) / "mine.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return str(path)


class CrowdTest(parameterized.TestCase):
  def test_two_groups_are_found_and_every_section_is_there(self):
    result, page = run(
      ("synthetic:two_groups",),
      ("synthetic:two_groups:test",),
      data__max_length=64,
    )
    found = {test["label"]: test for test in result["structure"]}
    # The source of a crowd's record is its group's name: one test, not two.
    self.assertEqual(set(found), {"annotator", "group"})
    for test in found.values():
      self.assertLessEqual(test["p_value"], 0.02)
    self.assertEqual(found["group"]["rows"], 200)  # people, not votes
    self.assertEqual(result["splits"]["train"]["pairs"], 4000)
    self.assertEqual(result["leakage"]["annotators"], 0)
    self.assertEqual(result["leakage"]["prompts"], 0)
    known = oracle.reference_accuracies(crowd.preset("two_groups"))["all"]
    for name in ("always_longer", "bag_of_words"):
      self.assertAlmostEqual(result["baselines"][name], known[name], places=12)
    for heading in (
      "Verdicts and next steps", "Length and position bias", "Annotators",
      "Sample pairs", "Do annotators, groups or sources differ?",
    ):  # fmt: skip
      self.assertIn(f"<h2>{heading}</h2>", page)
    for detail in (
      "Rows read", "Duplicates and leakage", "Lengths",
      "The smallest differences these pairs can show",
    ):  # fmt: skip
      self.assertIn(f"<summary>{detail}</summary>", page)
    # By chance one pair of the 4,000 was judged by two people.
    votes = result["splits"]["train"]["votes"]
    self.assertEqual((votes["pairs"], votes["votes"]), (1, 2))
    self.assertIsNone(result["splits"]["eval"]["votes"])
    self.assertIn("<h2>Votes</h2>", page)
    self.assertIn("do not share one preference", page)
    self.assertIn("configs/rm_mixture_crowd.py", pages.next_command(result))

  def test_shares_and_resolution_are_over_people(self):
    rng = np.random.default_rng(0)
    longer = np.repeat(rng.random(20) < 0.5, 10)
    rows = [
      {"prompt": f"Q{i}", "chosen": "aaa" if long else "b",
       "rejected": "cc", "annotator": f"p{i // 10}"}
      for i, long in enumerate(longer)
    ]  # fmt: skip
    over_people = run((write(*rows),))[0]
    for row in rows:
      del row["annotator"]
    over_pairs = run((write(*rows),))[0]
    wide, thin = (
      found["splits"]["train"]["longer_wins"]["all"]
      for found in (over_people, over_pairs)
    )
    self.assertEqual(wide["value"], thin["value"])
    self.assertGreater(
      wide["high"] - wide["low"], 2.5 * (thin["high"] - thin["low"])
    )
    self.assertEqual(over_people["resolution"]["people"]["n"], 20)
    self.assertNotIn("people", over_pairs["resolution"])

  def test_the_control_shows_no_structure(self):
    result, page = run(("synthetic:one_taste",))
    for test in result["structure"]:
      self.assertGreater(test["p_value"], 0.05)
      self.assertAlmostEqual(test["share"], test["expected"], delta=0.02)
    self.assertIn("200 annotators are not significant", page)
    self.assertIsNone(result["leakage"])
    self.assertIn("configs/rm_bt_crowd.py", pages.next_command(result))

  def test_counted_votes(self):
    result, page = run((), ("synthetic:votes:test",))
    votes = result["splits"]["eval"]["votes"]
    self.assertEqual(votes["pairs"], 100)
    self.assertEqual(votes["votes"], 1000)
    records = crowd.records_of("votes:test", seed=0)
    unanimous = sum(record.votes_rejected == 0 for record in records)
    self.assertAlmostEqual(votes["unanimous"], unanimous / 100)
    ties = sum(record.votes_chosen == 5 for record in records)
    self.assertEqual(result["splits"]["eval"]["ties"], ties)
    self.assertEqual(result["structure"], [])
    self.assertIn("Group structure cannot be tested", page)
    for absent in ("Do annotators", "<h2>Annotators", "shown first"):
      self.assertNotIn(absent, page)
    self.assertIn("<h2>Votes</h2>", page)

  def test_votes_on_the_same_pairs_are_exchanged_within_them(self):
    result, _ = run(("synthetic:two_groups,votes_per_pair=5",))
    by_person = result["structure"][0]
    self.assertEqual(by_person["label"], "annotator")
    self.assertTrue(by_person["within_pairs"])
    self.assertLessEqual(by_person["p_value"], 0.02)


class StructureTest(absltest.TestCase):
  def find(self, records):
    return group_structure.find(records, num_samples=99, num_rows=9999, seed=0)

  def test_a_source_that_owns_its_pairs_is_not_exchanged_within_them(self):
    # The same five people judge every pair; the sources want opposite things.
    records = [
      Record(
        prompt=f"Q{i}",
        responses=("a" * (5 + i), "b") if source == "long" else ("b", "a" * i),
        source=source,
        annotator=f"p{k}",
      )
      for i in range(4, 30)
      for source in ("long", "short")
      for k in range(5)
    ]
    found = {test["label"]: test for test in self.find(records)}
    self.assertTrue(found["annotator"]["within_pairs"])
    self.assertEqual(found["annotator"]["p_value"], 1.0)  # all vote alike
    self.assertFalse(found["source"]["within_pairs"])
    self.assertLessEqual(found["source"]["p_value"], 0.02)

  def test_one_judgement_each_tells_nobody_apart(self):
    records = [
      Record(prompt="Q", responses=("a" * i, "b"), annotator=str(i))
      for i in range(2, 9)
    ]
    self.assertEqual(self.find(records), [])


class FilesTest(absltest.TestCase):
  def test_bias_leakage_and_duplicates(self):
    train = [
      {"prompt": f"Q{i}", "chosen": "long answer " + "x" * i, "rejected": "no",
       "position": 0}
      for i in range(30)
    ]  # fmt: skip
    train.append({"prompt": "Q1", "chosen": "no", "rejected": "long answer x"})
    train.append({"prompt": "Q1", "chosen": "no", "rejected": ""})
    held_out = [
      {"prompt": "q 1", "chosen": "new", "rejected": "text"},
      {"prompt": "Q1!", "chosen": "even newer", "rejected": "b"},
      {"prompt": "P", "chosen": "same", "rejected": "size"},
    ]
    result, page = run((write(*train),), (write(*held_out),))
    split = result["splits"]["train"]
    self.assertEqual(split["sources"][0]["read"], 32)
    self.assertEqual(split["sources"][0]["kept"], 31)
    self.assertEqual(split["sources"][0]["dropped"]["empty_response"], 1)
    self.assertEqual(split["first_wins"]["value"], 1.0)
    self.assertAlmostEqual(split["longer_wins"]["all"]["value"], 30 / 31)
    self.assertEqual(split["repeats"]["contradicted"], 1)
    self.assertEqual(result["leakage"]["prompts"], 1)
    self.assertEqual(
      result["splits"]["eval"]["longer_wins"]["all"]["value"], 0.5
    )
    self.assertIn("Leakage: of 3 held-out pairs 1 have a prompt", page)
    self.assertIn("train: 1 pairs contradict an earlier one.", page)
    self.assertIn("<h2>Rows read</h2>", page)  # not all was kept
    self.assertIn("the response shown first was chosen in 100.0 %", page)
    # Three pairs show nothing, and JSON has no NaN.
    self.assertIsNone(result["resolution"]["pairs"]["accuracy_over_chance"])

  def test_rankings_and_long_pairs(self):
    rows = [{"prompt": "Q" * 600, "responses": ["aaa", "bb", "c"]}]
    result, page = run((write(*rows),))
    split = result["splits"]["train"]
    self.assertEqual((split["records"], split["pairs"]), (1, 3))
    self.assertEqual(split["longer_than_max_length"], 3)
    self.assertEqual(split["tokens"]["prompt"]["max"], 600)
    self.assertIn("3 of 3 pairs exceed max_length", page)

  def test_responses_judged_alone(self):
    rows = [
      {"prompt": "Q", "responses": [f"a{i}"], "label_votes": [[2, 2]]}
      for i in range(3)
    ]
    result, page = run((write(*rows),))
    rated = result["splits"]["train"]["rated"]
    self.assertEqual(rated["responses"], 3)
    self.assertEqual(rated["entropy_bits"], 1.0)
    self.assertAlmostEqual(rated["two_agree"], 2 / 6, places=6)
    self.assertEqual(result["structure"], [])
    self.assertIn("There are no pairs", page)

  def test_held_out_by_prompt(self):
    result, _ = run(
      ("synthetic:two_groups",), data__split_by="prompt",
      data__eval_fraction=0.25,
    )  # fmt: skip
    train, held_out = (result["splits"][n]["pairs"] for n in ("train", "eval"))
    self.assertEqual(train + held_out, 4000)
    self.assertBetween(held_out, 700, 1300)
    self.assertEqual(result["leakage"]["prompts"], 0)
    self.assertGreater(result["leakage"]["annotators"], 0)

  def test_nothing_to_audit_is_an_error(self):
    with self.assertRaisesRegex(ValueError, "must name a source, got none"):
      run()

  def test_a_bad_line_is_named(self):
    path = write({"prompt": "Q", "chosen": "a"})
    with self.assertRaisesRegex(ValueError, rf"^{path}:1: missing field"):
      run((path,))


if __name__ == "__main__":
  absltest.main()
