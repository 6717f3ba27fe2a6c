"""Tokenizers made here: their tokens, and what they add to a text."""

from absl.testing import absltest, parameterized

from jaxalign.data.tokenization import own_tokenizers

TEXTS = ["hello there", "hello world"]
BPE = lambda: own_tokenizers.learned(TEXTS * 3, vocab_size=263)


class OwnTokenizersTest(parameterized.TestCase):
  @parameterized.parameters(
    (own_tokenizers.bytes_alone, (256, 257, 258)), (BPE, (0, 1, 2))
  )
  def test_a_text_is_between_its_markers(self, make, markers):
    fast = make()
    pad, bos, eos = markers
    self.assertEqual(
      (fast.pad_token_id, fast.bos_token_id, fast.eos_token_id), markers
    )
    alone = fast("hello <eos>", add_special_tokens=False)["input_ids"]
    self.assertNoCommonElements(alone, markers)
    self.assertEqual(fast("hello <eos>")["input_ids"], [bos, *alone, eos])
    self.assertEqual(
      fast("hello <eos>", "a")["input_ids"],
      [bos, *alone, *fast("a")["input_ids"][1:]],
    )
    self.assertEqual(fast.decode(alone), "hello <eos>")
    self.assertEqual({*fast("a")}, {*own_tokenizers.INPUTS})
    batch = fast(["a", "ab c"], padding=True)["input_ids"]
    self.assertEqual(batch[0][-1], pad)

  @parameterized.parameters((None, "</s>"), ("<s>", None), (None, None))
  def test_a_marker_may_be_absent(self, bos, eos):
    backend = own_tokenizers.bytes_alone().backend_tokenizer
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = own_tokenizers.enclosing(backend, bos, eos)
    first = [] if bos is None else [259]
    last = [] if eos is None else [260]
    self.assertEqual(backend.encode("a").ids, [*first, 97, *last])

  def assertNoCommonElements(self, some, others):
    self.assertEmpty({*some} & {*others})


if __name__ == "__main__":
  absltest.main()
