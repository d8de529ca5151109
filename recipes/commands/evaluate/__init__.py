"""``cinepoet evaluate``: does a film show what its prompt says, and what do the tokenizers keep?"""

from __future__ import annotations

SUMMARY = "measure a model: prompts and tasks on unseen combinations, reconstruction; write its card"
EXAMPLES = """\
  cinepoet evaluate prompts --prompts 200 --out results
  cinepoet evaluate reconstruction --media my_clips --out results
  cinepoet evaluate tokenizer --tokenizer cosmos-dv --media my_clips --squeezenet squeezenet_v1_0.npz --out results
  cinepoet evaluate card --model runs/tiny/bundle --results results   # writes README.md from what was measured
"""
COMMANDS = {
    "prompts": ".prompts",
    "tasks": ".tasks",
    "reconstruction": ".reconstruction",
    "tokenizer": ".tokenizer",
    "superres": ".superres",
    "speech": ".speech",
    "card": ".card",
}
