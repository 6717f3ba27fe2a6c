"""Heads of rewards: of a decoder, and of features that are given."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign import models
from jaxalign.models import heads, reward_heads
from tests import parallel_modes
from tests.models.samples import GPT2, LLAMA, WIDE, rows, start

REWARD = dataclasses.replace(LLAMA, num_outputs=3)
GIVEN = dataclasses.replace(REWARD, num_texts=5)
UNITS = {"head_units": 6, "head_activation": "gelu"}


def numbers(*texts):
  """Texts by their numbers, and the mask; None is a row without a text."""
  tokens = np.array([[-7 if n is None else n] for n in texts], np.int32)
  return tokens, tokens >= 0


class PoolingTest(absltest.TestCase):
  def test_last_attended_position(self):
    mask = jnp.asarray([[1, 1, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
    last = reward_heads.last_attended
    np.testing.assert_array_equal(last(mask), [1, 2, 1, 0])
    mask = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
    np.testing.assert_array_equal(last(mask, but_one=True), [0, 1, 0, 0])


class FeatureNetworkTest(parameterized.TestCase):
  @parameterized.parameters(None, "keep", "remove")
  def test_rewards_are_of_the_rows_of_the_table(self, log_length):
    config = dataclasses.replace(GIVEN, log_length=log_length)
    model, params = start(config)
    self.assertEqual(params["features"].shape, (5, 8 + bool(log_length)))
    table = np.asarray(params["features"], np.float64)
    out = model.apply(params, *numbers(3, None, 0))
    rows = table[[3, 0], :8]
    want = rows @ np.asarray(params["score"]["kernel"])
    if log_length == "keep":
      want += table[[3, 0], 8:] * np.asarray(params["log_length"]["kernel"])
    np.testing.assert_allclose(out.rewards[::2], want, atol=1e-6)
    np.testing.assert_array_equal(out.features[::2], rows.astype(np.float32))
    np.testing.assert_array_equal(out.rewards[1], np.zeros(3))
    self.assertEqual(models.reward_model(config), model)


def gelu(x):
  """x Φ(x), by the error function and not by its approximation."""
  return np.vectorize(lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2))))(x)


def units_of(features, params, activation):
  """The hidden units of features [N, D], float64 [N, U]."""
  hidden = {k: np.asarray(v, np.float64) for k, v in params["hidden"].items()}
  return {"tanh": np.tanh, "gelu": gelu}[activation](
    np.asarray(features, np.float64) @ hidden["kernel"] + hidden["bias"]
  )


class HiddenUnitsTest(parameterized.TestCase):
  @parameterized.product(
    activation=("tanh", "gelu"), log_length=(None, "keep", "remove")
  )
  def test_equal_to_numpy(self, activation, log_length):
    self.enter_context(jax.enable_x64(True))
    config = dataclasses.replace(
      GIVEN,
      head_units=6,
      head_activation=activation,
      log_length=log_length,
      **WIDE,
    )
    model, params = start(config)
    self.assertEqual(params["hidden"]["kernel"].shape, (8, 6))
    self.assertEqual(params["score"]["kernel"].shape, (6, 3))
    out = model.apply(params, *numbers(3, None, 0))
    table = np.asarray(params["features"])[[3, 0]]
    units = units_of(table[:, :8], params, activation)
    want = units @ np.asarray(params["score"]["kernel"])
    if log_length == "keep":
      want += table[:, 8:] * np.asarray(params["log_length"]["kernel"])
    np.testing.assert_allclose(out.features[::2], units, rtol=1e-12)
    np.testing.assert_allclose(out.rewards[::2], want, rtol=1e-12)
    np.testing.assert_array_equal(out.features[1], np.zeros(6))
    np.testing.assert_array_equal(out.rewards[1], np.zeros(3))

  @parameterized.product(
    base=(REWARD, dataclasses.replace(GPT2, num_outputs=3)),
    pooling=("last", "mean"),
  )
  def test_a_decoder_is_read_by_the_same_units(self, base, pooling):
    plain = dataclasses.replace(base, pooling=pooling)
    config = dataclasses.replace(plain, **UNITS)
    model, params = start(config)
    tokens, mask = rows()
    inputs = dict(response=np.arange(6)[None] >= np.full((3, 1), 2))
    out = model.apply(params, tokens, mask, **inputs)
    linear = models.reward_model(plain)
    rest = {k: v for k, v in params.items() if k != "hidden"}
    rest["score"] = {"kernel": jnp.zeros((8, 3))}
    read = linear.apply(rest, tokens, mask, **inputs).features
    units = units_of(read, params, "gelu")
    np.testing.assert_allclose(out.features, units, atol=1e-5)
    np.testing.assert_allclose(
      out.rewards, units @ np.asarray(params["score"]["kernel"]), atol=1e-5
    )
    found = heads.pooled_features(
      config, params, tokens, mask, inputs["response"]
    )
    np.testing.assert_allclose(found, read, atol=1e-6)

  @parameterized.parameters("tanh", "gelu")
  def test_gradients_to_second_order(self, activation):
    self.enter_context(jax.enable_x64(True))
    config = dataclasses.replace(
      GIVEN, head_units=3, head_activation=activation, **WIDE
    )
    model, params = start(config)
    inputs = numbers(3, None, 0, 1)

    def loss(head):
      out = model.apply({**params, **head}, *inputs)
      return jnp.sum(jnp.sin(out.rewards)) + jnp.sum(out.features**2)

    head = {name: params[name] for name in ("hidden", "score")}
    check_grads(loss, (head,), order=2, modes=("rev",))

  def test_a_row_without_a_text_has_no_gradient(self):
    model, params = start(dataclasses.replace(GIVEN, **UNITS))
    # Hidden units of a vector of zeros are not 0 themselves.
    self.assertTrue(np.all(np.abs(params["hidden"]["bias"]) > 1e-3))
    loss = lambda params: jnp.sum(
      jnp.cos(model.apply(params, *numbers(None, None)).rewards + 1.0)
    )
    for grad in jax.tree.leaves(jax.grad(loss)(params)):
      np.testing.assert_array_equal(grad, np.zeros_like(grad))

  @parameterized.parameters(3, 24)
  def test_begins_with_rewards_of_about_unit_variance(self, units):
    config = dataclasses.replace(
      GIVEN, num_outputs=400, num_texts=64, embed_dim=32, head_units=units
    )
    model = models.reward_model(config)
    params = model.init(jax.random.key(0), *numbers(0))
    np.testing.assert_array_equal(params["hidden"]["bias"], np.zeros(units))
    table = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    out = model.apply({**params, "features": table}, *numbers(*range(64)))
    self.assertBetween(float(np.var(out.rewards)), 0.25, 1.0)

  def test_members_side_by_side_are_a_loop(self):
    model, params = start(dataclasses.replace(GIVEN, **UNITS))
    table = {heads.FEATURES: params[heads.FEATURES]}  # one for all of them
    inputs = numbers(3, 1, 0)
    keys = jax.random.split(jax.random.key(3), 4)
    members = jax.vmap(lambda key: model.init(key, *inputs))(keys)
    rewards = lambda own: model.apply({**own, **table}, *inputs).rewards
    found = jax.vmap(rewards)(members)
    self.assertGreater(float(np.ptp(found, axis=0).min()), 1e-3)
    np.testing.assert_allclose(found, jax.lax.map(rewards, members), atol=1e-6)

  def test_the_same_on_eight_devices(self):
    config = dataclasses.replace(GIVEN, num_texts=16, **UNITS, **WIDE)
    with jax.enable_x64(True):
      model, params = start(config)
    order = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 15])
    where = np.arange(16) != 6

    def loss(params, batch, axis_name):
      del axis_name
      out = model.apply(params, batch["text"][:, None], batch["where"][:, None])
      return jnp.mean(jnp.sum(jnp.sin(out.rewards), axis=-1))

    batch = {"text": order.astype(np.int32), "where": where}
    parallel_modes.assert_same_in_all_modes(loss, params, batch)


def mixed_by_hand(each, params):
  """Layers [N, n, D] as one, float64 [N, D]."""
  logits = np.asarray(params["layer_mixture"]["logits"], np.float64)
  shares = np.exp(logits) / np.exp(logits).sum()
  return np.einsum("l,nld->nd", shares, np.asarray(each, np.float64))


DEEP = {"num_layers": 3, "mixed_layers": (1, 3)}


class LayerMixtureTest(parameterized.TestCase):
  @parameterized.product(units=(None, 6), log_length=(None, "keep", "remove"))
  def test_equal_to_numpy(self, units, log_length):
    self.enter_context(jax.enable_x64(True))
    config = dataclasses.replace(
      GIVEN, head_units=units, log_length=log_length, **DEEP, **WIDE
    )
    model, params = start(config)
    self.assertEqual(params["features"].shape, (5, 16 + bool(log_length)))
    out = model.apply(params, *numbers(3, None, 0))
    table = np.asarray(params["features"])[[3, 0]]
    read = mixed_by_hand(table[:, :16].reshape(2, 2, 8), params)
    if units is not None:
      read = units_of(read, params, "tanh")
    want = read @ np.asarray(params["score"]["kernel"])
    if log_length == "keep":
      want += table[:, 16:] * np.asarray(params["log_length"]["kernel"])
    np.testing.assert_allclose(out.features[::2], read, rtol=1e-12)
    np.testing.assert_allclose(out.rewards[::2], want, rtol=1e-12)
    np.testing.assert_array_equal(out.rewards[1], np.zeros(3))

  @parameterized.product(
    base=(REWARD, dataclasses.replace(GPT2, num_outputs=3)),
    pooling=("last", "before_last", "mean"),
  )
  def test_layers_are_those_that_are_read_alone(self, base, pooling):
    config = dataclasses.replace(base, pooling=pooling, **DEEP)
    model, params = start(config)
    tokens, mask = rows()
    response = np.arange(6)[None] >= np.full((3, 1), 2)
    out = model.apply(params, tokens, mask, response=response)
    each = []
    for layer in (1, 3):
      alone = dataclasses.replace(config, num_layers=layer, mixed_layers=None)
      cut = jax.tree.map(lambda leaf, n=layer: leaf[:n], params["layers"])
      own = {k: v for k, v in params.items() if k != "layer_mixture"}
      given = {**own, "layers": cut}, tokens, mask
      read = models.reward_model(alone).apply(*given, response=response)
      each.append(np.asarray(read.features))
      sure = {"logits": np.array([80.0 * (layer == 1), 80.0 * (layer == 3)])}
      chosen = {**params, "layer_mixture": sure}
      found = model.apply(chosen, tokens, mask, response=response)
      np.testing.assert_allclose(found.rewards, read.rewards, atol=1e-5)
    self.assertGreater(np.abs(each[0] - each[1]).max(), 0.1)
    read = mixed_by_hand(np.stack(each, 1), params)
    np.testing.assert_allclose(out.features, read, atol=1e-5)
    np.testing.assert_allclose(
      out.rewards, read @ np.asarray(params["score"]["kernel"]), atol=1e-5
    )
    found = heads.pooled_features(config, params, tokens, mask, response)
    np.testing.assert_allclose(found, np.stack(each, 1), atol=1e-5)

  @parameterized.parameters(
    ("none", 3, 0.0), ("dots", 1, 0.0), ("full", 1, 0.2), ("full", 3, 0.0)
  )
  def test_the_program_changes_no_result(self, remat, unroll, dropout):
    base = dataclasses.replace(REWARD, pooling="mean", dropout=dropout, **DEEP)
    _, params = start(base)
    tokens, mask = rows()
    keys = jax.random.split(jax.random.key(2), 3) if dropout else None

    def gradient(config):
      loss = lambda params: jnp.sum(
        jnp.sin(
          models.reward_model(config)
          .apply(params, tokens, mask, response=mask, dropout_keys=keys)
          .rewards
        )
      )
      return jax.jit(jax.value_and_grad(loss))(params)

    changed = dataclasses.replace(base, remat=remat, unroll=unroll)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
      gradient(changed),
      gradient(base),
    )

  def test_gradients_to_second_order(self):
    self.enter_context(jax.enable_x64(True))
    model, params = start(
      dataclasses.replace(GIVEN, head_units=3, **DEEP, **WIDE)
    )
    trained = {k: v for k, v in params.items() if k != heads.FEATURES}

    def loss(head):
      out = model.apply({**params, **head}, *numbers(3, None, 0, 1))
      return jnp.sum(jnp.sin(out.rewards)) + jnp.sum(out.features**2)

    self.assertLen(trained, 3)
    check_grads(loss, (trained,), order=2, modes=("rev",))

  def test_gradients_of_a_decoder_that_is_mixed(self):
    self.enter_context(jax.enable_x64(True))
    model, params = start(dataclasses.replace(REWARD, **DEEP, **WIDE))
    tokens, mask = rows()
    loss = lambda params: jnp.sum(
      jnp.sin(model.apply(params, tokens, mask).rewards)
    )
    check_grads(jax.jit(loss), (params,), order=1, modes=("rev",), eps=1e-5)

  def test_a_row_without_a_text_has_no_gradient(self):
    config = dataclasses.replace(GIVEN, num_texts=2, **DEEP)
    model, params = start(config)
    params[heads.FEATURES] = params[heads.FEATURES].at[0].set(jnp.nan)
    loss = lambda head: jnp.sum(
      jnp.cos(model.apply({**params, **head}, *numbers(None, 1)).rewards)
    )
    head = {name: params[name] for name in ("score", "layer_mixture")}
    for grad in jax.tree.leaves(jax.grad(loss)(head)):
      self.assertTrue(np.isfinite(grad).all())
      self.assertGreater(np.abs(grad).max(), 0)

  def test_begins_with_the_mean_of_the_layers(self):
    config = dataclasses.replace(GIVEN, **DEEP)
    model = models.reward_model(config)
    params = model.init(jax.random.key(0), *numbers(0))
    table = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    out = model.apply({**params, heads.FEATURES: table}, *numbers(*range(5)))
    np.testing.assert_allclose(
      out.features, table.reshape(5, 2, 8).mean(1), atol=1e-6
    )

  def test_the_same_on_eight_devices(self):
    config = dataclasses.replace(REWARD, pooling="mean", **DEEP, **WIDE)
    with jax.enable_x64(True):
      model, params = start(config)
    tokens, mask = rows(batch=8)

    def loss(params, batch, axis_name):
      del axis_name
      out = model.apply(
        params, batch["tokens"], batch["mask"], response=batch["mask"]
      )
      return jnp.mean(jnp.sum(jnp.sin(out.rewards), axis=-1))

    batch = {"tokens": tokens, "mask": mask}
    parallel_modes.assert_same_in_all_modes(loss, params, batch)


if __name__ == "__main__":
  absltest.main()
