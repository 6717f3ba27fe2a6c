"""Names that other people's code imports: their arguments stay as they are.

A row fixes order, kinds and defaults. It may stand here before its function
does; what the changelog calls added must be importable.
"""

import importlib
import inspect
import re

from absl.testing import absltest, parameterized

from tests import checkout

PINNED = """
ops.gae(rewards, values, *, discount, gae_lambda, where=None, final_value=0.0)
ops.masked_mean(x, *, where, axis=None, axis_name=None)
ops.masked_var(x, *, where, axis=None, axis_name=None)
ops.masked_whiten(x, *, where, axis_name=None)
ops.min_norm_weights(gram, *, where=None)
ops.sinkhorn(a, b, cost, *, epsilon, num_iters)
ops.sinkhorn_divergence(a, b, cost_ab, cost_aa, cost_bb, *, epsilon, num_iters)
ops.wasserstein_1d(p, q, positions, *, power=1)
losses.bradley_terry_loss(chosen, rejected, *, margin=0.0, flip_rate=0.0)
losses.clipped_policy_loss(log_probs, old_log_probs, advantages, *,
  clip_eps=0.2, dual_clip=None)
losses.clipped_value_loss(values, old_values, returns, *, clip_eps=0.2)
losses.cvar_utility(probs, utilities, *, alpha)
losses.dpo_loss(chosen_log_probs, rejected_log_probs, ref_chosen_log_probs,
  ref_rejected_log_probs, *, beta, flip_rate=0.0)
losses.expected_utility(probs, utilities)
losses.exponentiated_weights(weights, utilities, *, step_size)
losses.flip_mask(strength, *, fraction)
losses.gradient_ema(state, gradients, *, decay)
losses.group_relative_advantages(rewards, *, kind='grpo')
losses.group_utilities(rewards, *, where=None, axis_name=None)
losses.kl_estimate(log_probs, ref_log_probs, *, estimator='k1')
losses.label_cross_entropy(logits, target)
losses.label_posterior(prior, votes, *, prior_strength)
losses.lookahead_gradient(loss_fn, ascent_fn, params, *, step_size,
  second_order=False, precondition=None, axis_name=None)
losses.maxmin_weights(utilities)
losses.mixture_log_likelihood(gaps, *, user, num_users, mixture_weights,
  where=None, axis_name=None)
losses.more_weights(gradients, *, normalise='l2', losses=None, where=None)
losses.optimal_transport_loss(logits, target, cost, *, epsilon=0.2,
  num_iters=100)
losses.plackett_luce_loss(scores, *, where=None)
losses.preference_strength(margins)
losses.reward_centering_penalty(chosen, rejected)
losses.reward_head_gradients(chosen_features, rejected_features, gaps, *,
  source, num_sources, slopes=None, where=None, axis_name=None)
losses.reward_spread(rewards)
losses.simcse_loss(view_a, view_b, *, temperature=0.05, where=None,
  axis_name=None)
losses.soft_min_weights(utilities, *, temperature)
losses.soft_preference_loss(chosen, rejected, *, chosen_prob, margin=0.0)
losses.source_weighted_loss(losses, *, source, weights, where=None,
  axis_name=None)
losses.targeted_label_smoothing(probs, *, epsilon, prior=None, cost=None)
losses.token_rewards(scores, kl, *, kl_coef, where)
losses.user_responsibilities(gaps, *, user, num_users, mixture_weights,
  where=None, hard=False, axis_name=None)
losses.wasserstein_1d_loss(logits, target, positions, *, power=1)
losses.welfare(utilities, *, kind, weights=None, temperature=None, order=None,
  alpha=None)
metrics.alignment_gap(policy_probs, reference_probs, rewards, *, beta)
metrics.bootstrap_interval(statistic, *arrays, key, level=0.95,
  num_samples=1000)
metrics.brier_score(gaps, *, where=None)
metrics.expected_calibration_error(gaps, *, num_bins=10, where=None)
metrics.preference_accuracy(chosen, rejected, *, where=None, ties='half')
metrics.preference_diversity(probs_i, probs_j)
metrics.reward_drift(source_rewards, shared_rewards)
metrics.worst_group(values, *, where=None)
models.generate(config, params, prompts, mask, *, keys, max_new_tokens,
  min_new_tokens=0, temperature=1.0, top_k=None, top_p=None,
  repetition_penalty=1.0, eos_ids=(), pad_id)
models.load_causal_lm(path, *, dtype='float32')
models.load_reward_model(path, *, dtype='float32')
models.save_pretrained(path, params, config)
"""
SIGNATURES = dict(
  re.match(r"([\w.]+)(\(.*\))$", " ".join(row.split())).groups()
  for row in re.split(r"\n(?=\w)", PINNED.strip())
)


def signature(function) -> str:
  """The arguments without their annotations."""
  whole = inspect.signature(function)
  bare = [p.replace(annotation=p.empty) for p in whole.parameters.values()]
  return str(inspect.Signature(bare))


def differences(package: str, module) -> list[str]:
  """Pinned functions of a module that take something else, one line each."""
  return [
    f"{name}: pinned {pinned}, found {signature(getattr(module, short))}"
    for name, pinned in SIGNATURES.items()
    for owner, _, short in (name.partition("."),)
    if owner == package and hasattr(module, short)
    if signature(getattr(module, short)) != pinned
  ]


def announced(changelog: str) -> list[tuple[str, str]]:
  """(package, name) of what bullets such as "- `jaxalign.ops`: `x`." list."""
  bullets = re.findall(r"^- `jaxalign\.(\w+)`:(.*(?:\n  .*)*)", changelog, re.M)
  return [
    (package, name)
    for package, text in bullets
    for name in re.findall(r"`(\w+)`", text)
  ]


def removed(changelog: str) -> set[tuple[str, str]]:
  """The (package, name) of its sections "Removed"."""
  sections = re.findall(
    r"^### Removed\n(.*?)(?=^##|\Z)", changelog, re.M | re.S
  )
  return {pair for text in sections for pair in announced(text)}


def renamed(changelog: str) -> dict[str, str]:
  """Old names below jaxalign and their new ones, by the changelog's table."""
  return dict(re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", changelog, re.M))


def importable(name: str) -> bool:
  """Whether `package.name` below jaxalign is a module, or a name of one."""
  owner, _, short = name.rpartition(".")
  try:
    if hasattr(importlib.import_module(f"jaxalign.{owner}"), short):
      return True
    importlib.import_module(f"jaxalign.{name}")
  except ModuleNotFoundError:
    return False
  return True


class PinnedNamesTest(parameterized.TestCase):
  @parameterized.parameters("ops", "losses", "metrics", "models")
  def test_arguments_are_as_pinned(self, package):
    module = importlib.import_module(f"jaxalign.{package}")
    found = differences(package, module)
    self.assertEmpty(found, "\n" + "\n".join(found))

  def test_a_changed_argument_is_noticed(self):
    class Module:
      @staticmethod
      def masked_var(x, *, where, axis=0, axis_name=None):
        return x, where, axis, axis_name

    self.assertLen(differences("ops", Module), 1)
    self.assertIn("axis=0", differences("ops", Module)[0])

  def test_what_the_changelog_announces_can_be_imported(self):
    text = (checkout.ROOT / "CHANGELOG.md").read_text()
    self.assertNotEmpty(announced(text))
    new = renamed(text)
    for package, name in {*announced(text)} - removed(text):
      name = f"{package}.{name}"
      self.assertTrue(importable(new.get(name, name)), name)

  def test_what_the_changelog_removes_is_gone(self):
    text = (checkout.ROOT / "CHANGELOG.md").read_text()
    self.assertNotEmpty(removed(text))
    for package, name in removed(text):
      self.assertFalse(importable(f"{package}.{name}"), f"{package}.{name}")

  def test_every_renamed_module_is_where_the_changelog_says(self):
    for old, new in renamed(
      (checkout.ROOT / "CHANGELOG.md").read_text()
    ).items():
      self.assertTrue(importable(new), f"{old} -> {new}")

  def test_a_missing_name_is_noticed(self):
    self.assertTrue(importable("losses.bradley_terry_loss"))
    self.assertTrue(importable("algorithms.mixture"))
    self.assertFalse(importable("losses.bradley_loss"))
    self.assertFalse(importable("nowhere.bradley_terry_loss"))

  def test_announced_names_are_found_over_several_lines(self):
    self.assertEqual(
      announced("- `jaxalign.ops`: `a`,\n  `b`.\n- Stages `c`.\n"),
      [("ops", "a"), ("ops", "b")],
    )


if __name__ == "__main__":
  absltest.main()
