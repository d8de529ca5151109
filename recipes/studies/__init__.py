"""Does the paper's claim hold here? Experiments of several trainings each: ``python -m recipes.studies.larp_prior``."""
