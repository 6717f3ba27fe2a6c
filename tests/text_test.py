"""What no tracked file may say: promises, and where it was written."""

import re
import shutil
import subprocess

from absl.testing import absltest, parameterized

from tests import checkout

# Spelt so that this file does not break its own rules.
RULES = {
  "a postponed promise; do it now or leave it out": re.compile(
    r"\b(TO[D]O|FIX[M]E|X{3}|HAC[K])\b|pragma: no [c]over"
  ),
  "a path of one machine": re.compile(
    r"(?<![\w.~\-}])/(work|root|home|Users|opt|mnt|tmp)/[\w.]"
  ),
  "where packages come from is for pip's configuration to say": re.compile(
    r"--(extra-)?index-[u]rl|--find-[l]inks|py[p]i\.|python[h]osted"
  ),
  "data beside the checkout; only .ci/run may know of it": re.compile(
    r"\.\./share[d]"
  ),
}
HOMES = {".ci/run": "data beside the checkout; only .ci/run may know of it"}


def complaints(name: str, text: str) -> list[str]:
  """What the rules say about one file.

  Args:
    name: path in the checkout.
    text: its content.

  Returns:
    One line per complaint.
  """
  return [
    f"{name}:{number}: {rule}: {line.strip()[:80]}"
    for number, line in enumerate(text.splitlines(), 1)
    for rule, pattern in RULES.items()
    if pattern.search(line) and HOMES.get(name) != rule
  ]


class TextTest(parameterized.TestCase):
  def test_every_tracked_file(self):
    found = []
    for path in checkout.files():
      if b"\0" not in (content := path.read_bytes()):
        found += complaints(checkout.relative(path), content.decode())
    self.assertEmpty(found, "\n" + "\n".join(found))

  @parameterized.parameters(
    "# TO" + "DO: the backward pass",
    "if x:  # pragma: no " + "cover",
    'open("/hom' + 'e/me/data.jsonl")',
    "--workdir=/tm" + "p/run",
    "pip install --extra-index-" + "url=https://a.b",
    "https://py" + "pi.org/simple",
    "cp ../share" + "d/data .",
  )
  def test_notices(self, line):
    self.assertLen(complaints("a.py", line), 1)

  @parameterized.parameters(
    "gs://bucket/tmp/run",
    "~/.pyenv/versions",
    "$HOME/work/x",
    "/dev/null",
    "#!/usr/bin/env bash",
  )
  def test_leaves_alone(self, line):
    self.assertEmpty(complaints("a.sh", line))


class ShellTest(absltest.TestCase):
  def scripts(self):
    paths = checkout.files("*.sh", ".ci/run")
    self.assertNotEmpty(paths)
    return paths

  def test_bash_reads_every_script(self):
    for path in self.scripts():
      subprocess.run(["bash", "-n", path], check=True)

  def test_every_command_can_be_run_and_is_bash(self):
    for path in self.scripts():
      sourced = path.read_text().startswith("# shellcheck shell=bash\n")
      if sourced:
        continue
      with self.subTest(checkout.relative(path)):
        self.assertStartsWith(path.read_text(), "#!/usr/bin/env bash\n")
        self.assertNotEqual(path.stat().st_mode & 0o111, 0)

  def test_shellcheck_has_nothing_to_say(self):
    if shutil.which("shellcheck") is None:
      self.skipTest("shellcheck is not installed")
    done = subprocess.run(
      ["shellcheck", "--external-sources", *self.scripts()],
      cwd=checkout.ROOT,
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
  absltest.main()
