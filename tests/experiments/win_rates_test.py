"""Who wins by reward and by a judge that has habits of its own."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.llm_labels import client
from jaxalign.data.llm_labels.prompts import Answer
from jaxalign.data.synthetic import crowd
from jaxalign.experiments import win_rates
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.llm_labels import llm_judge
from tests import config_reads, shipped
from tests.data import rude_server

PROMPTS = [f"Q{i}" for i in range(6)]
OURS = ["good", "bad", "same", "good", "good", "bad"]
TEXTS = [" Lovely! Take your time.", " No."] * 3
THEIRS = ["bad", "good", "same", "bad", "bad", "good"]


def files(texts):
  path = epath.Path(tempfile.mkdtemp()) / "answers.jsonl"
  rows = [
    {"prompt": p, "responses": [t], "group": "odd" if i % 2 else "even"}
    for i, (p, t) in enumerate(zip(PROMPTS, texts, strict=True))
  ]
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return (str(path),)


def goodness(prompts, responses):
  return [{"good": 1.0, "bad": -1.0, "same": 0.0}[text] for text in responses]


def config_of(url=None):
  variant = "smoke" if url is None else "judge"
  cfg = shipped.config("win_rates", variant)
  cfg.mesh.data = 1
  cfg.num_resamples = 50
  with cfg.ignore_type():
    cfg.first, cfg.second = files(OURS), files(THEIRS)
    cfg.source.update(crowd=None, function=f"{__name__}:goodness")
    if url is not None:
      cfg.judge.update(url=url, max_attempts=2, backoff_s=0.01)
  return configuration.to_dataclass(win_rates.Config, cfg)


def shown(asked):
  """Answers A and B of a question."""
  text = asked["messages"][-1]["content"]
  first, second = text.partition("Answer A:\n")[2].split("\n\nAnswer B:\n")
  return first, second


def honest(handler, asked, before):
  first, second = (goodness([], [t])[0] for t in shown(asked))
  letter = "A" if first > second else "B" if second > first else "C"
  rude_server.reply(handler, f"One is better.\n{letter}")


def run(config, workdir=None):
  workdir = epath.Path(tempfile.mkdtemp()) if workdir is None else workdir
  win_rates.run(config, workdir, yes=True)
  return json.loads((workdir / "eval.json").read_text())


class WinRatesTest(parameterized.TestCase):
  def test_intervals_are_over_people_where_they_are_known(self):
    # Each of 12 people asked 5 prompts and had all answered better, or none.
    wins = np.repeat(np.arange(12) % 2, 5).astype(float)
    config = dataclasses.replace(config_of(), num_resamples=300)
    people = np.repeat(np.arange(12), 5)
    wide = win_rates.summarise(wins, config, 2 * wins, people)
    thin = win_rates.summarise(wins, config, 2 * wins)
    self.assertEqual(wide["score"], thin["score"])
    for low, high in (("low", "high"), ("gap_low", "gap_high")):
      self.assertGreater(wide[high] - wide[low], 1.6 * (thin[high] - thin[low]))
    prompts = run(config_of())
    self.assertEqual(prompts["intervals_over"], "prompts")

  def test_by_reward_per_group(self):
    config = config_of()
    with config_reads.recorded(config) as unread:
      rates = run(config)["rates"]["reward"]
    # The instructions are those of a judge, and there is none.
    unread -= {"instructions"}
    self.assertEmpty({k for k in unread if not k.startswith("source.")})
    scores = rates["all"]
    self.assertEqual(scores["num_pairs"], 6)
    for name, expected in (("win", 3), ("tie", 1), ("loss", 2)):
      self.assertAlmostEqual(scores[name], expected / 6)
    self.assertAlmostEqual(scores["score"], 3.5 / 6)
    self.assertLess(scores["low"], scores["score"])
    self.assertGreater(scores["high"], scores["score"])
    self.assertAlmostEqual(scores["gap"], 2 / 6)
    self.assertLess(scores["gap_low"], scores["gap"])
    self.assertGreater(scores["gap_high"], scores["gap"])
    self.assertAlmostEqual(rates["even"]["gap"], 4 / 3)
    self.assertAlmostEqual(rates["even"]["score"], 2.5 / 3)
    self.assertAlmostEqual(rates["odd"]["score"], 1 / 3)

  def test_labels_of_both_files_by_a_source_that_predicts_them(self):
    config = config_of()
    source = dataclasses.replace(config.source, function=None, crowd="labels")
    config = dataclasses.replace(
      config, source=source, first=files(TEXTS), second=files(TEXTS[::-1])
    )
    found = run(config)["labels"]
    people = crowd.crowd_of("labels", seed=0)
    shares = np.array(
      [crowd.label_shares(people, *x) for x in zip(PROMPTS, TEXTS, strict=True)]
    )
    for k, share in enumerate(found["first"]["shares"]):
      self.assertAlmostEqual(share["value"], shares[:, k].mean(), places=5)
      self.assertAlmostEqual(share["std"], shares[:, k].std(), places=5)
      self.assertAlmostEqual(found["gap"]["shares"][k]["value"], 0, places=6)
    self.assertEqual(found["second"]["num_prompts"], 6)
    low, high = (found["gap"]["worth"][end] for end in ("low", "high"))
    self.assertLess(low, 0)
    self.assertGreater(high, 0)

  def test_a_judge_is_asked_both_ways_and_never_twice(self):
    workdir = epath.Path(tempfile.mkdtemp())
    with rude_server.serving(honest) as server:
      result = run(config_of(server.url), workdir)
      asked = sum(server.seen.values())
      again = run(config_of(server.url), workdir)
      self.assertEqual(sum(server.seen.values()), asked)
    # A tie of equal texts is one question in both orders.
    self.assertEqual(asked, 11)
    self.assertEqual(result["rates"]["judge"], again["rates"]["judge"])
    for kind, rates in result["rates"]["judge"].items():
      by_reward = result["rates"]["reward"][kind]
      nothing = dict.fromkeys(("gap", "gap_low", "gap_high"))
      self.assertEqual(rates, by_reward | nothing)
    self.assertEqual(result["judge_counts"]["disagreements"], 0)

  def test_the_judge_is_asked_nothing_without_a_word(self):
    judge = lambda url, **prices: dataclasses.replace(
      config_of(url).judge, price_completion=1.0, **prices
    )
    with rude_server.serving(honest) as server:
      config = config_of(server.url)
      for budget, error in (
        (None, r"^11 questions for up to \$0.00 .* --config.judge.budget=DOLL"),
        (1e-6, r"exceeds judge.budget \$0.00"),
      ):
        priced = dataclasses.replace(
          config, judge=judge(server.url, budget=budget)
        )
        with self.assertRaisesRegex(ValueError, error):
          win_rates.run(priced, epath.Path(tempfile.mkdtemp()))
      self.assertEmpty(server.seen)
      enough = dataclasses.replace(config, judge=judge(server.url, budget=1.0))
      win_rates.run(enough, epath.Path(tempfile.mkdtemp()))
      self.assertEqual(sum(server.seen.values()), 11)

  def test_each_group_judges_by_its_own_instruction(self):
    with rude_server.serving(honest) as server:
      config = dataclasses.replace(
        config_of(server.url),
        instructions=("odd=Is it good?", " all of us =Is it good?"),
      )
      rates = run(config)["rates"]
    self.assertEqual({*rates}, {"reward", "judge as odd", "judge as all of us"})
    # Records name the group "odd"; nobody is of "all of us".
    self.assertEqual(rates["judge as odd"]["all"]["num_pairs"], 3)
    self.assertEqual(rates["judge as odd"]["even"]["num_pairs"], 0)
    for key in ("win", "tie", "loss"):
      by_judge = rates["judge as odd"]["odd"][key]
      self.assertEqual(by_judge, rates["reward"]["odd"][key])
    self.assertEqual(rates["judge as all of us"]["all"]["num_pairs"], 6)

  def test_what_a_group_wants_decides_its_verdicts(self):
    def obliging(handler, asked, before):
      first, second = (goodness([], [t])[0] for t in shown(asked))
      if "Is it bad?" in asked["messages"][0]["content"]:
        first, second = second, first
      letter = "A" if first > second else "B" if second > first else "C"
      rude_server.reply(handler, letter)

    with rude_server.serving(obliging) as server:
      config = dataclasses.replace(
        config_of(server.url), instructions=("x=Is it good?", "y=Is it bad?")
      )
      rates = run(config)["rates"]
    x, y = (rates[f"judge as {name}"]["all"] for name in "xy")
    self.assertEqual((x["win"], x["loss"]), (y["loss"], y["win"]))
    self.assertNotEqual(x["win"], y["win"])

  def test_helpful_and_harmless_are_asked_apart(self):
    asked_for = []

    def careful(handler, asked, before):
      system = asked["messages"][0]["content"]
      asked_for.append(system)
      first, second = (goodness([], [t])[0] for t in shown(asked))
      if "do harm, to the person or to others" in system:
        first, second = second, first
      letter = "A" if first > second else "B" if second > first else "C"
      rude_server.reply(handler, letter)

    with rude_server.serving(careful) as server:
      config = dataclasses.replace(
        config_of(server.url), instructions=("helpful", " harmless")
      )
      rates = run(config)["rates"]
    helpful, harmless = (
      rates[f"judge as {name}"]["all"] for name in llm_judge.CRITERIA
    )
    self.assertEqual(helpful["win"], rates["reward"]["all"]["win"])
    self.assertEqual(helpful["win"], harmless["loss"])
    self.assertNotEqual(helpful["win"], harmless["win"])
    for text in llm_judge.CRITERIA.values():
      self.assertLen([one for one in asked_for if text in one], 11)
    mine = dataclasses.replace(config, instructions=("helpful=Is it?",))
    self.assertEqual(mine.judges(), {"helpful": "Is it?"})

  @parameterized.parameters(
    ("x",), ("=x",), ("x=",), ("x=a", "x=b"), ("helpful=",),
    ("helpful", "helpful=a"),
  )  # fmt: skip
  def test_instructions_must_have_names_and_texts(self, *instructions):
    config = config_of("http://localhost:1/v1")
    with self.assertRaisesRegex(ValueError, "instructions must be NAME=TEXT"):
      dataclasses.replace(config, instructions=instructions)
    with self.assertRaisesRegex(ValueError, "set judge as well"):
      dataclasses.replace(config_of(), instructions=("x=a",))

  @parameterized.parameters("A", "B")
  def test_a_judge_that_likes_a_place_sees_ties(self, letter):
    place = lambda h, asked, before: rude_server.reply(h, letter)
    with rude_server.serving(place) as server:
      result = run(config_of(server.url))
    self.assertEqual(result["rates"]["judge"]["all"]["tie"], 1.0)
    self.assertEqual(result["judge_counts"]["disagreements"], 6)

  def test_what_is_no_verdict_does_not_count(self):
    def moody(handler, asked, before):
      if "Q0" in asked["messages"][-1]["content"]:
        rude_server.reply(handler, "I cannot say which is better")
      elif "Q1" in asked["messages"][-1]["content"]:
        rude_server.raw(handler, b"oops", status=500)
      else:
        honest(handler, asked, before)

    with rude_server.serving(moody) as server:
      result = run(config_of(server.url))
    self.assertEqual(result["rates"]["judge"]["all"]["num_pairs"], 4)
    self.assertEqual(result["judge_counts"]["unreadable"], 2)
    self.assertEqual(result["judge_counts"]["http_500"], 4)

  def test_a_judge_that_refuses_everybody_ends_the_run(self):
    refuse = lambda h, asked, before: rude_server.raw(h, b"who?", status=401)
    with (
      rude_server.serving(refuse) as server,
      self.assertRaisesRegex(client.EndpointError, "status 401: who"),
    ):
      run(config_of(server.url))

  @parameterized.parameters(
    ("A", 1.0),
    ("Both are fine.\n**B**", 0.0),
    ("x\nAnswer: c.\n", 0.5),
    ("B is worse\n(a)", 1.0),
    ("", None),
    ("A is better than B", None),
    ("D", None),
  )
  def test_verdicts_are_read_from_the_last_line(self, text, expected):
    found = llm_judge.read_verdict(Answer(text, "stop", False, 0, 0))
    if expected is None:
      self.assertTrue(np.isnan(found))
    else:
      self.assertEqual(found, expected)

  def test_a_refusal_is_no_verdict(self):
    self.assertTrue(np.isnan(llm_judge.read_verdict(None)))
    refused = Answer("A", "stop", True, 0, 0)
    self.assertTrue(np.isnan(llm_judge.read_verdict(refused)))

  def test_margins_make_ties(self):
    gaps = np.array([0.5, 0.1, 0.0, -0.1, -0.5])
    np.testing.assert_array_equal(
      win_rates.outcomes_of(gaps, 0.2), [1, 0.5, 0.5, 0.5, 0]
    )
    self.assertEqual(
      win_rates.summarise(np.array([np.nan]), config_of())["num_pairs"], 0
    )

  def test_gaps_are_in_deviations_of_the_seeds_own_crowd(self):
    config = config_of()
    source = dataclasses.replace(
      config.source, function=None, crowd="two_groups", names=()
    )
    config = dataclasses.replace(
      config,
      first=files(TEXTS),
      second=files(TEXTS[::-1]),
      source=source,
    )
    found = [
      run(dataclasses.replace(config, crowd_seed=seed))["rates"]["warm"]["even"]
      for seed in (0, 1)
    ]
    self.assertEqual(found[0]["score"], found[1]["score"])
    self.assertNotEqual(found[0]["gap"], found[1]["gap"])

  def test_an_empty_answer_is_judged_as_any_other(self):
    texts = [" Lovely!", "", " No.", "", " Enjoy!", " "]
    config = config_of()
    config = dataclasses.replace(
      config,
      first=files(texts),
      second=files(TEXTS),
      source=dataclasses.replace(
        config.source, function=None, crowd="two_groups"
      ),
    )
    rates = run(config)["rates"]
    self.assertEqual(rates["warm"]["all"]["num_pairs"], 6)

  def test_other_prompts_are_refused(self):
    config = config_of()
    other = dataclasses.replace(
      config, second=("synthetic:two_groups,num_annotators=4:train",)
    )
    with self.assertRaisesRegex(ValueError, "must answer the same prompts"):
      run(other)


if __name__ == "__main__":
  absltest.main()
