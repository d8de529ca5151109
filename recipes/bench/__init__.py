"""Speed and memory as ratios against named references measured in the same run: ``python -m recipes.bench.visual``."""
