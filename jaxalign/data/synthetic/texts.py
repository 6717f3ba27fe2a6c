"""Synthetic texts: household questions and answers with known qualities.

An answer may be warm (friendly phrases), short, and on topic (it names the
thing that was asked about), in any combination, so that preferences for warmth
and for brevity conflict while everyone agrees about the topic. The qualities
are read off the text itself, so they are defined for any text, a model's too.
"""

import numpy as np

from jaxalign.data.synthetic.config import QUALITIES as QUALITIES

# 24 + 24 things; which half a text mentions says which split it belongs to.
THINGS = {
  "train": (
    "boots", "tiles", "pans", "rugs", "lamps", "books", "coins", "masks",
    "pears", "plums", "seeds", "knives", "chairs", "flutes", "kites", "ropes",
    "shirts", "bowls", "maps", "tents", "drums", "wires", "gloves", "cakes",
  ),
  "test": (
    "hats", "forks", "doors", "bikes", "stamps", "jars", "limes", "nuts",
    "bells", "coats", "desks", "cards", "skis", "vases", "toys", "sails",
    "pens", "beads", "locks", "carts", "figs", "oars", "quilts", "shelves",
  ),
}  # fmt: skip
QUESTIONS = (
  "How do I {verb} {thing}?",
  "How can I {verb} my {thing}?",
  "Best way to {verb} {thing}?",
  "Help me {verb} {thing}.",
)
ANSWERS = {
  "clean": ("Wipe the {thing}.", "Rinse the {thing}.", "Soak the {thing}."),
  "store": ("Box the {thing}.", "Stack the {thing}.", "Shelve the {thing}."),
  "move": ("Roll the {thing}.", "Lift the {thing}.", "Push the {thing}."),
  "sell": ("Price the {thing}.", "List the {thing}.", "Show the {thing}."),
  "sort": ("Group the {thing}.", "Rank the {thing}.", "Label the {thing}."),
  "fix": ("Glue the {thing}.", "Patch the {thing}.", "Tape the {thing}."),
}
OFF_TOPIC = ("Hard to say.", "It depends.", "No idea.", "Try the internet.")
WARM_OPENERS = (
  "Happy to help! ",
  "Great idea! ",
  "Lovely! ",
  "Good thinking! ",
)
PLAIN_OPENERS = ("", "", "Right. ", "In short: ")
DETAILS = ("", "", " Do it twice.", " Take your time.", " Use both hands.")
WARM_CLOSERS = (" Have fun!", " Enjoy!", " You got this!", " Good luck!")
WARM_PHRASES = tuple(p.strip() for p in (*WARM_OPENERS, *WARM_CLOSERS))

# What a prompt asks for that has shifted from those above.
SHIFTED_QUESTIONS = (
  "Should I {verb} {thing}?",
  "When should I {verb} my {thing}?",
  "Is it worth it to {verb} {thing}?",
)
SHIFTED_ANSWERS = {
  "paint": ("Prime the {thing}.", "Coat the {thing}.", "Spray the {thing}."),
  "lend": ("Tag the {thing}.", "Insure the {thing}.", "Note the {thing}."),
  "weigh": ("Hang the {thing}.", "Scale the {thing}.", "Load the {thing}."),
}
# Shares of warm openers, of warm closers and of answers on topic, in training
# and where a policy has moved all the way towards warmth.
WARM, ON_TOPIC = (0.4, 0.9), (0.75, 0.25)


def draw_pair(
  rng: np.random.Generator,
  split: str,
  *,
  prompt_shift: float = 0.0,
  response_shift: float = 0.0,
) -> tuple[str, str, str]:
  """A prompt and two different responses to it.

  Args:
    rng: source of randomness.
    split: "train" or "test"; no text is in both.
    prompt_shift: probability that the prompt asks for what only shifted ones
      do.
    response_shift: how far in [0, 1] the shares of `WARM` and `ON_TOPIC` have
      moved.

  Returns:
    The prompt, at most 40 bytes, and two responses, at most 64 bytes each.
  """
  prompt, (first, second) = draw_responses(
    rng, split, 2, prompt_shift=prompt_shift, response_shift=response_shift
  )
  return prompt, first, second


def draw_responses(
  rng: np.random.Generator,
  split: str,
  number: int,
  *,
  prompt_shift: float = 0.0,
  response_shift: float = 0.0,
) -> tuple[str, tuple[str, ...]]:
  """A prompt and `number` different responses to it, as `draw_pair` has them.

  Args:
    rng: source of randomness.
    split: "train" or "test".
    number: responses, far fewer than the 980 that there are.
    prompt_shift: see `draw_pair`.
    response_shift: see there.

  Returns:
    The prompt and the responses.
  """
  pick = lambda options: options[rng.integers(len(options))]
  answers, questions = ANSWERS, QUESTIONS
  # Without a shift nothing is drawn for it.
  if prompt_shift and rng.random() < prompt_shift:
    answers, questions = SHIFTED_ANSWERS, SHIFTED_QUESTIONS
  thing = pick(THINGS[split])
  verb = pick(tuple(answers))
  prompt = f"Q: {pick(questions).format(verb=verb, thing=thing)}\nA:"
  responses: list[str] = []
  while len(responses) < number:
    response = _draw_response(rng, answers[verb], thing, response_shift)
    if response not in responses:
      responses.append(response)
  return prompt, tuple(responses)


def _draw_response(
  rng: np.random.Generator, answers: tuple[str, ...], thing: str, shift: float
) -> str:
  pick = lambda options: options[rng.integers(len(options))]
  warm, on_topic = (
    start + shift * (end - start) for start, end in (WARM, ON_TOPIC)
  )
  answer = pick(answers if rng.random() < on_topic else OFF_TOPIC)
  opener = pick(WARM_OPENERS if rng.random() < warm else PLAIN_OPENERS)
  closer = pick(WARM_CLOSERS) if rng.random() < warm else ""
  return f" {opener}{answer.format(thing=thing)}{pick(DETAILS)}{closer}"


def qualities(prompt: str, response: str) -> np.ndarray:
  """Warmth, brevity and topic of a response, each near [-1, 1].

    warmth  = min(friendly phrases, 2) - 1
    brevity = (40 - bytes) / 24, bytes clipped to [16, 64]
    topic   = 1 if the response names the thing the prompt asks about, else -1

  Args:
    prompt: a question of this world.
    response: any text.

  Returns:
    float64 [3], in the order of `QUALITIES`.
  """
  phrases = sum(response.count(phrase) for phrase in WARM_PHRASES)
  num_bytes = len(response.strip().encode())
  words = prompt.removesuffix("\nA:").rstrip("?.").split()
  on_topic = bool(words) and words[-1] in response
  return np.array(
    [
      min(phrases, 2) - 1.0,
      (40 - min(max(num_bytes, 16), 64)) / 24,
      1.0 if on_topic else -1.0,
    ]
  )
