"""Translations there and back, from a server on this machine, asked once."""

import dataclasses
import tempfile

from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.llm_labels import client
from jaxalign.experiments.llm_labels import back_translation
from tests.data import rude_server


def polite(handler, asked, before):
  """Into German it marks a text, into English it says it otherwise."""
  system, user = (turn["content"] for turn in asked["messages"])
  text = user.removeprefix("de:")
  said = f"de:{text}" if "into German" in system else f"{text} indeed"
  rude_server.reply(handler, f" {said}\n")


def config_of(url, **changes):
  folder = epath.Path(tempfile.mkdtemp())
  given = dict(
    url=url,
    file=str(folder / "said.jsonl"),
    budget=0.0,
    backoff_s=0.01,
    max_attempts=2,
  )
  return back_translation.TranslatorConfig(**given | changes)


class BackTranslationTest(parameterized.TestCase):
  def test_there_and_back_once_and_never_again(self):
    texts = [" Good day.\n", "Good day.", "Bye", "", " "]
    with rude_server.serving(polite) as server:
      config = config_of(server.url)
      found = back_translation.translate(config, texts)
      self.assertEqual(
        found.texts,
        [" Good day. indeed\n", "Good day. indeed", "Bye indeed", None, None],
      )
      self.assertEqual(sum(server.seen.values()), 4)
      self.assertEqual(found.counts["asked"], 4)
      again = back_translation.translate(config, texts)
      self.assertEqual(sum(server.seen.values()), 4)
      self.assertEqual(again.texts, found.texts)
      self.assertEqual((again.counts["asked"], again.counts["known"]), (0, 4))
    # The server is gone, and another host has the file alone.
    self.assertEqual(back_translation.kept(config, texts).texts, found.texts)
    more = back_translation.kept(config, ["Bye", "Hello"])
    self.assertEqual(more.texts, ["Bye indeed", None])

  def test_a_killed_run_asks_what_is_missing(self):
    with rude_server.serving(polite) as server:
      config = config_of(server.url)
      whole = back_translation.translate(config, ["a", "b", "c"]).texts
      path = epath.Path(config.file)
      lines = path.read_bytes().splitlines(keepends=True)
      path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
      found = back_translation.translate(config, ["a", "b", "c"])
    self.assertEqual(found.texts, whole)
    self.assertEqual(found.counts["asked"], 2)

  @parameterized.parameters(
    dict(finish_reason="length"), dict(finish_reason="content_filter"), dict()
  )
  def test_what_is_cut_refused_or_empty_is_no_translation(self, **choice):
    def rude(handler, asked, before):
      text = asked["messages"][-1]["content"]
      if "odd" in text:
        rude_server.reply(handler, "half of" if choice else " ", **choice)
      else:
        polite(handler, asked, before)

    with rude_server.serving(rude) as server:
      config = config_of(server.url)
      found = back_translation.translate(config, ["odd one", "even one"])
    self.assertEqual(found.texts, [None, "even one indeed"])

  def test_another_language_or_model_is_another_question(self):
    with rude_server.serving(polite) as server:
      config = config_of(server.url)
      back_translation.translate(config, ["a"])
      other = dataclasses.replace(config, model="other")
      back_translation.translate(other, ["a"])
      self.assertEqual(sum(server.seen.values()), 4)

  def test_nothing_is_asked_beyond_the_budget(self):
    with rude_server.serving(polite) as server:
      dear = dict(price_completion=1e6, max_tokens=1)
      config = config_of(server.url, budget=3.0, **dear)
      with self.assertRaisesRegex(
        ValueError, r"\$4.00 exceeds recipe.translator.budget \$3.00"
      ):
        back_translation.translate(config, ["a", "b"])
      self.assertEmpty(server.seen)
      # With one of two translated the rest costs half.
      back_translation.translate(config, ["a"])
      back_translation.translate(config, ["a", "b"])
      self.assertEqual(sum(server.seen.values()), 4)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "budget must be the dollars"):
      config_of("http://localhost:1/v1", budget=None)
    with self.assertRaisesRegex(ValueError, "file must name"):
      config_of("http://localhost:1/v1", file="")

    def closed(handler, asked, before):
      rude_server.reply(handler, "no", status=401)

    with (
      rude_server.serving(closed) as server,
      self.assertRaisesRegex(client.EndpointError, "status 401"),
    ):
      back_translation.translate(config_of(server.url), ["a"])


if __name__ == "__main__":
  absltest.main()
