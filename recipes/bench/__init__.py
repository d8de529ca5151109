"""How fast is it? Ratios against named references measured in the same run: ``python -m recipes.bench.visual``."""
