"""Whatever stands in a row or in a file beside it, an adapter says so there.

Every value of a good row of every adapter, at any depth, is replaced by values
of other kinds and sizes. What comes out is a record or a ValueError.
"""

import copy
import math
import warnings

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import registry
from jaxalign.data.records.record import parse_record
from tests.data import hub_files_test as hub
from tests.data.adapters import benchmarks_test as benchmarks
from tests.data.adapters import local_ratings_test as ratings
from tests.data.adapters import local_votes_test as votes
from tests.data.adapters import personalized_soups_test as soups

JUNK = (
  None,
  True,
  -1,
  1.0,
  2.5,
  10**400,
  math.nan,
  math.inf,
  "",
  "2.0",
  "1e999",
  [],
  [None],
  [[1]],
  {},
  {"x": 1},
)
STORY = {"id": "s", "text": "Once", "ids": [1, 2]}
HATE = {"post_id": "p", "annotator": "a1", "rating": "1"}
POST = {"post_id": "p", "text": "post", "source_set": "CP"}
JOKES = {"item_a": "0", "item_b": "7"}
JOKES |= {"votes_a_funnier": "3", "votes_b_funnier": "1"}

# name: rows of its file, and of those beside it.
ROWS = {name: (rows, None) for name, rows in hub.SETS.items()} | {
  "allenai/reward-bench": ([benchmarks.FIRST], None),
  "allenai/reward-bench-2": ([benchmarks.SECOND], None),
  "convarg/votes": ([votes.VOTES], votes.CONVARG),
  "mt_bench/votes": ([votes.JUDGED], votes.MT_BENCH),
  "humour/votes": ([JOKES], votes.HUMOUR),
  "pandalm/votes": ([votes.PANDALM], None),
  "qa_feedback/records": ([votes.QA], None),
  "webis_argquality/comparisons": ([votes.COMPARED], votes.WEBIS),
  "dices/dices350": ([ratings.DICES], None),
  "dices/dices990": ([ratings.DICES], None),
  "google-research-datasets/dices-dataset": ([ratings.RATER], None),
  "crehate/ratings": ([HATE], ratings.CREHATE),
  "crehate/posts": ([POST | {"country_label": {"US": 1, "AU": 0}}], None),
  "vader_sentiment/snippets": ([ratings.SNIPPET], None),
  "cnndm_summaries/ratings": ([ratings.SUMMARY], None),
  "dsp_domains_NC/queries": ([ratings.QUERY], None),
  "bon_tulu16_NC/candidates": ([ratings.BEST_OF], None),
  "bon_tulu16_NC/choices": ([ratings.BEST_OF], None),
  "personalized_soups": ([soups.row(0, "P1A")], None),
  "personalized_soups/train": ([soups.row(0, "P1A")], None),
  # Half of forty people, of whom each has a row, are on the other side.
  "personalized_soups/eval": ([soups.row(i, "P1A") for i in range(21)], None),
  "scored_texts": (
    [{"text": ["Assistant: a", "Assistant: b"], "score": [1.5, 0.5]}],
    None,
  ),
  "stories260k_lm/story_prompts": ([STORY], None),
  "stories260k_lm/prompts_train": ([STORY], None),
  "stories260k_lm/prompts_test": ([STORY], None),
}


def places(value, path=()):
  """Paths to everything in nested lists and objects."""
  if isinstance(value, dict | list):
    for key in value if isinstance(value, dict) else range(len(value)):
      yield (*path, key)
      yield from places(value[key], (*path, key))


def replaced(value, path, junk):
  value = copy.deepcopy(value)
  at = value
  for key in path[:-1]:
    at = at[key]
  if junk is KeyError:
    del at[path[-1]]
  else:
    at[path[-1]] = junk
  return value


def read(name, rows, tables):
  """The rows' records; a ValueError says where."""
  found = [(f"f:{i}", row) for i, row in enumerate(rows)]
  made = []
  try:
    for where, row in registry.get(name).apply(found, tables=tables):
      try:
        if isinstance(row, ValueError):
          raise row
        made.append(parse_record(row, where=where, need_responses=False))
      except ValueError:
        continue
  except ValueError as error:
    # Of the files beside, which are read before any row.
    if "beside this one" not in str(error):
      raise AssertionError(f"{error} names no file") from error
  return made


class AdapterValuesTest(parameterized.TestCase):
  def test_every_adapter_that_turns_rows_into_others_is_here(self):
    turning = {
      name
      for name, one in registry.ADAPTERS.items()
      if one.row or one.stream or one.join
    }
    self.assertEqual({*ROWS}, turning)

  @parameterized.parameters(*sorted(ROWS))
  def test_any_value_is_a_record_or_an_error_of_its_row(self, name):
    rows, tables = ROWS[name]
    if name != "stories260k_lm/prompts_train":  # "Once" is on the other side
      self.assertNotEmpty(read(name, rows, tables))
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      for junk in (*JUNK, KeyError):
        for path in places(rows):
          if len(path) > 1:  # a reader gives objects alone
            read(name, replaced(rows, path, junk), tables)
        for path in places(tables):
          if len(path) > 1:
            read(name, rows, replaced(tables, path, junk))


if __name__ == "__main__":
  absltest.main()
