"""What questions to an endpoint may cost, and who has agreed to it."""

from absl.testing import absltest, parameterized

from jaxalign.data.llm_labels import cost, prompts

CONFIG = prompts.EndpointConfig(max_tokens=50)
ASKED = [[{"role": "user", "content": letter * 400}] for letter in "abc"]


def estimate(known=()):
  return cost.estimate(
    CONFIG, ASKED, known, price_prompt=2.0, price_completion=10.0
  )


class CostTest(parameterized.TestCase):
  def test_an_estimate_counts_what_was_not_asked_before(self):
    found = estimate(known={prompts.question_key(CONFIG, ASKED[0])})
    # 800 characters are 200 tokens; two answers of 50 tokens at most.
    self.assertEqual(found[:4], (2, 1, 200, 100))
    self.assertAlmostEqual(found.dollars, (200 * 2 + 100 * 10) / 1e6)
    self.assertIn("2 questions to ask (1 answered before)", found.in_words())

  def test_consent_is_a_budget_or_yes(self):
    found = estimate()
    cost.check_allowed(found, 1.0, key="a.budget", yes=False)
    cost.check_allowed(found, None, key="a.budget", yes=True)
    nothing = found._replace(questions=0, dollars=0.0)
    cost.check_allowed(nothing, None, key="a.budget", yes=False)

  @parameterized.parameters(
    (None, False, "3 questions .* --yes asks them, or with --config.a.budget="),
    (0.001, False, r"exceeds a.budget \$0.00; nothing was asked"),
    (0.001, True, "exceeds a.budget"),
  )
  def test_without_consent_nothing_is_asked(self, budget, yes, message):
    with self.assertRaisesRegex(ValueError, message):
      cost.check_allowed(estimate(), budget, key="a.budget", yes=yes)

  @parameterized.parameters("price_prompt", "price_completion", "budget")
  def test_prices_and_budgets_are_not_negative(self, name):
    with self.assertRaisesRegex(ValueError, f"{name} must be >= 0, got -1"):
      cost.PricedEndpointConfig(**{name: -1.0})


if __name__ == "__main__":
  absltest.main()
