"""``cinepoet train``: a table of trainings, each with its own options."""

SUMMARY = "train a complete model from nothing, or one part of it, or go on where a training stopped"
EXAMPLES = """\
  cinepoet train smoke                                        # every stage in under two minutes, to see it run
  cinepoet train tiny --media my_clips --out runs/tiny        # the embedded default; the same command resumes
  cinepoet train lm --data runs/shards --out runs/lm          # a language model on shards of cinepoet prepare
  cinepoet train superres --media my_films --out runs/superres
  cinepoet train soundstream --media my_sounds --out runs/soundstream
  cinepoet train larp-ar --tokenizer runs/larp/model --out runs/larp_ar
  cinepoet train lm --help                                    # what one of them takes
"""
COMMANDS = {
    "tiny": ".tiny",
    "smoke": ".tiny",
    "lm": ".lm",
    "superres": ".superres",
    "soundstream": ".soundstream",
    "larp": ".larp",
    "larp-ar": ".larp_ar",
}
