"""Sections of a learner that contradict themselves or each other."""

from absl.testing import absltest, parameterized

from jaxalign.algorithms import policy_config
from tests.algorithms import bigram

DPO = dict(kind="dpo", **bigram.PAIRS)


LOSS_KL = dict(place="loss", estimator="k2")
GDPO = dict(policy=dict(kind="gdpo", whiten=False), critic=bigram.NO_CRITIC)


class PolicyConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ("policy", dict(kind="trpo"), "kind must be one of"),
    ("policy", dict(aggregation="mean"), "aggregation must be one of"),
    ("policy", dict(clip_eps=0.0), "clip_eps must be > 0"),
    ("policy", dict(kind="gdpo"), "whiten must be False with kind 'gdpo'"),
    ("policy", dict(clip_eps_high=0.0), "clip_eps_high must be > 0"),
    ("policy", DPO | dict(clip_eps_high=0.3), "clip_eps_high must be None"),
    ("policy", dict(clip_eps=None), "needs clip_eps"),
    ("policy", dict(dual_clip=1.0), "dual_clip must be > 1"),
    ("policy", dict(epochs=0), "epochs must be >= 1"),
    ("policy", dict(text_coef=0.0), "text_coef must be > 0"),
    ("policy", DPO | dict(text_coef=1.0), "text_coef must be None"),
    ("critic", dict(warmup_iterations=-1), "warmup_iterations must be >= 0"),
    (
      "critic",
      bigram.NO_CRITIC | dict(warmup_iterations=1),
      "must be 0 unless kind is 'separate'",
    ),
    ("policy", DPO | dict(clip_eps=0.2), "clip_eps must be None"),
    ("policy", DPO | dict(whiten=True), "whiten must be False"),
    ("critic", dict(kind="own"), "kind must be one of"),
    ("critic", dict(kind="none"), "must be None with kind 'none'"),
    ("critic", dict(kind="shared"), "needs coef"),
    ("critic", dict(coef=0.1), "coef must be None with kind 'separate'"),
    ("critic", dict(clip=0.0), "clip must be > 0"),
    ("critic", dict(discount=None), r"discount must be in \[0, 1\]"),
    ("critic", dict(gae_lambda=1.1), r"gae_lambda must be in \[0, 1\]"),
    ("critic", dict(num_atoms=7), "num_atoms, low and high are set together"),
    ("critic", dict(low=0.0), "set together, got None, 0.0 and None"),
    ("critic", bigram.ATOMS | dict(num_atoms=1), "num_atoms must be >= 2"),
    ("critic", dict(num_labels=6), "num_labels goes with num_atoms alone"),
    ("critic", bigram.ATOMS | dict(num_labels=1), "num_labels must be >= 2"),
    ("critic", bigram.ATOMS | dict(low=0.6), "low must be < high, got 0.6 and"),
    ("critic", bigram.ATOMS | dict(clip=0.2), "clip must be None with num_"),
    (
      "critic",
      bigram.NO_CRITIC | dict(num_atoms=7, low=0.0, high=1.0),
      "num_atoms must be None with kind 'none'",
    ),
  )
  def test_refuses_a_section(self, name, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      bigram.section(name, **changes)

  @parameterized.parameters(
    (dict(critic=bigram.NO_CRITIC), "got 'none' with 'ppo'"),
    (dict(policy=dict(kind="rloo")), "got 'separate' with 'rloo'"),
    (dict(policy=DPO, critic=bigram.NO_CRITIC), "takes kl.coef as its beta"),
    (
      dict(
        policy=DPO | dict(kind="group_dpo"),
        critic=bigram.NO_CRITIC,
        kl=dict(place="loss", estimator="k2"),
      ),
      "must be 'exponentiated'",
    ),
    (GDPO, "kl.place must be 'loss' with policy.kind 'gdpo'"),
    (
      GDPO | dict(kl=LOSS_KL, reward=dict(scale="std")),
      "reward.scale must be 'none' with policy.kind 'gdpo'",
    ),
    (
      GDPO | dict(kl=LOSS_KL, reward=dict(clip=1.0)),
      "reward.clip must be None with policy.kind 'gdpo'",
    ),
    (
      GDPO | dict(kl=LOSS_KL, welfare=dict(kind="sample_min")),
      "welfare.kind must not be 'sample_min'",
    ),
    (
      dict(critic=bigram.ATOMS | dict(num_labels=6)),
      "needs one reward and reward.clip None, .* got 2 rewards",
    ),
    (
      dict(
        groups=("a",),
        critic=bigram.ATOMS | dict(num_labels=6),
        reward=dict(clip=1.0),
      ),
      "needs one reward and reward.clip None, .* got 1 rewards and 1.0",
    ),
    (dict(groups=()), "one or more different names"),
    (dict(groups=("a", "a")), "one or more different names"),
    (dict(welfare=dict(kind="single", group=2)), r"must be in \[0, 2\)"),
  )
  def test_refuses_sections_together(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      bigram.config(**changes)

  def test_group_relative_kinds_need_two_responses(self):
    bigram.config().check_responses(1)
    for kind in policy_config.GROUP_RELATIVE:
      cfg = bigram.config(
        policy=dict(kind=kind, whiten=False),
        critic=bigram.NO_CRITIC,
        kl=dict(place="loss", estimator="k2"),
      )
      cfg.check_responses(2)
      with self.assertRaisesRegex(ValueError, "at least 2 responses"):
        cfg.check_responses(1)


if __name__ == "__main__":
  absltest.main()
