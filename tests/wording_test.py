"""Glossary of wording: phrases the field does not use, and what it says."""

import re

from absl.testing import absltest, parameterized

from tests import checkout

# What to say -> what not to. Spelt so that this file passes its own test.
SAY = {
  "latent annotator groups": r"nobody [n]ame[sd]?\b",
  "a single pooled reward model": (
    r"one [r]eward (model )?(for|of) (all|every(body|one))\b"
  ),
  "the worst-off group": r"\bwor[s]e off\b",
  "significant, or distinguished": r"\bto[l]d (apart|from)\b",
  "return distribution": r"\blaw of what\b|\bwhat is to c[o]me\b",
  "rendezvous, heartbeat, fail fast": r"\broll [c]alls?\b|\bending to[g]ether",
  "decoding state": r"\bin the ma[k]ing\b",
  "cross-field validation": r"columns .*\bsay to[g]ether\b",
  "seeded epoch plan": r"order and com[p]any",
  "reward shaping": r"\bbends? (a|the) [s]core\b",
  "supervised fine-tuning": r"\btuned on (the )?[a]nswers\b",
  "bit-for-bit identical": r"\bleaves? the same [b]ytes\b",
  "subpackages": r"\bro[o]ms\b",
  "limitations": r"\bwhat it (cannot|can not) d[o]\b",
  "predicted, expected": r"\bfore[s]een\b",
  "deletes": r"\bg(ave|ive|iven|ives|iving) (the slice|its machines) b[a]ck\b",
  "initial checkpoints": r"\bstarting p[o]ints\b",
  "is not a file, is not a folder": r"\bis no (file|folder)\b(?! )",
  "use a new workdir": r"\btake another (wor[k]dir|zone|--name)\b",
  "the plan, by its name": r"\bdos[s]ier\b",
}
PATTERNS = {say: re.compile(phrase, re.I) for say, phrase in SAY.items()}


def complaints(name: str, text: str) -> list[str]:
  """Phrases of one file that have a better word.

  Args:
    name: path in the checkout.
    text: its content; a phrase may run over a line's end.

  Returns:
    One line per phrase, with its place and what to say.
  """
  # Same length, so that places stay: line ends and comment signs as spaces.
  flat = re.sub(r"[\n#>]", " ", text)
  flat = re.sub(r" {2,}", lambda m: " " + "\0" * (len(m[0]) - 1), flat)
  places = [i for i, char in enumerate(flat) if char != "\0"]
  flat = flat.replace("\0", "")
  return [
    f"{name}:{text.count(chr(10), 0, places[found.start()]) + 1}: "
    f"{found[0]!r}: say {say}"
    for say, pattern in PATTERNS.items()
    for found in pattern.finditer(flat)
  ]


class WordingTest(parameterized.TestCase):
  def test_every_tracked_file(self):
    found = []
    for path in checkout.files():
      content = path.read_bytes()
      if b"\0" not in content and path.name != "CHANGELOG.md":
        found += complaints(checkout.relative(path), content.decode())
    self.assertEmpty(found, "\n" + "\n".join(found))

  @parameterized.parameters(
    ("groups that nobody na" + "med", "latent"),
    ("one reward\n    for every" + "body", "pooled"),
    ("  # a difference not to\n  # " + "ld from none", None),
    ("a difference not\n  # tol" + "d from none", "significant"),
    ("what columns of one record say\ntog" + "ether", "cross-field"),
    ("it is no fi" + "le; use", "not a file"),
    ("Fore" + "seen", "predicted"),
  )
  def test_notices(self, text, say):
    found = complaints("a.py", text)
    if say is None:
      self.assertEmpty(found)
    else:
      self.assertLen(found, 1)
      self.assertIn(say, found[0])

  def test_names_the_line(self):
    found = complaints("a.md", "one\ntwo\n\n  is  in\n  the ma" + "king")
    self.assertStartsWith(found[0], "a.md:4: ")


if __name__ == "__main__":
  absltest.main()
