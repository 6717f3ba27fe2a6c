r"""What do 80 % who like it positive and 20 % who like it short prefer?

  python -m jaxalign.experiments.vote --config=configs/vote_imdb.py \
      --workdir=runs/vote_imdb

The preferences of MaxMin-RLHF's smaller experiment (arXiv 2402.08925, section
6): simulated people compare reviews that GPT-2 wrote to the same start, four in
five by sentiment, one in five by conciseness. Sampling is a command before:

  JAXALIGN_MODELS=... python -m jaxalign.experiments.sample \
      --config=configs/sample.py --config.model=$JAXALIGN_MODELS/gpt2-imdb \
      --config.files="('prompts/imdb_starts.jsonl',)" \
      --config.max_new_tokens=92 --workdir=runs/sample_imdb

`imdb_rewards:rewards`, on the Python path, gives both rewards, as
`policy_maxmin_gpt2_imdb.py` says, whose `:learned` variant learns from the
pairs. `:words` has sentiment by a lexicon in its place
(`$JAXALIGN_DATA/vader_sentiment`), so that no classifier is needed; `:smoke` is
small, on the synthetic crowd.

Measured: whatever it is given.
"""

import ml_collections

VARIANTS = ("full", "words", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.files = ("runs/sample_imdb/responses.jsonl",)
  cfg.source = dict(
    function="imdb_rewards:rewards", names=("sentiment", "conciseness")
  )

  if variant == "words":
    module = "jaxalign.data.synthetic.text_rewards"
    cfg.source.function = f"{module}:sentiment_and_conciseness"
  if variant == "smoke":
    cfg.files = ("synthetic:two_groups,num_annotators=20:train",)
    cfg.source = dict(crowd="two_groups")
    cfg.update(num_people=10, num_test_people=5, pairs_per_person=4)
  return cfg
