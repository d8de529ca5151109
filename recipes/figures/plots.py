"""Plots: curves of a run, figures over steps and rates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

FIGURES = {
    "log_mel_distance": "log-mel distance (less is better)",
    "stft_distance": "multi-resolution STFT distance (less is better)",
    "si_sdr_db": "SI-SDR, dB (more is better)",
    "stoi": "STOI (more is better)",
    "fad": "Fréchet audio distance (less is better)",
    "digit_accuracy": "digits understood (more is better)",
}


def plot_steps(result: dict[str, Any], path: Path) -> None:
    """Figures against decoding steps, a panel a figure; bicubic is dotted, of tokens dot-dashed, the ceiling dashed.

    Args:
        result: of ``evaluate_superres`` with ``steps``.
        path: PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = {name: told for name, told in result["sets"].items() if told.get("steps")}
    names = [*next(iter(curves.values()))["methods"]["ours"], "seconds_per_clip"]
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for number, (told, measured) in enumerate(curves.items()):
            counts = sorted(measured["steps"], key=int)
            values = [measured["steps"][count][name] for count in counts]
            axis.plot([int(count) for count in counts], values, marker="o", color=f"C{number}", label=told)
            for method, style in (("bicubic", ":"), ("bicubic_of_tokens", "-."), ("ceiling", "--")):
                level = measured["methods"][method].get(name)
                if level is not None:
                    axis.axhline(level, color=f"C{number}", linestyle=style, linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("decoding steps", fontsize=8)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def plot_rates(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Bits against distortion: a panel a figure, a line a tokenizer.

    Args:
        results: name to what ``evaluate_audio`` returned.
        path: PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [n for n in FIGURES if any(n in row for result in results.values() for row in result["levels"])]
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3.4 * lines), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for told, result in results.items():
            points = [(row["kbps"], row[name]) for row in result["levels"] if name in row]
            axis.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=told)
        axis.set_title(FIGURES[name], fontsize=9)
        axis.set_xlabel("kbit/s", fontsize=8)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def plot_costs(sizes: list[int], curves: dict[str, list[float]], path: Path, *, x: str, y: str) -> None:
    """What growing work costs, on two logarithmic axes.

    Args:
        sizes: of the work.
        curves: name to the cost at each size.
        path: PNG.
        x: what a size is.
        y: what a cost is.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure, axis = plt.subplots(figsize=(6, 4))
    for name, costs in curves.items():
        axis.plot(sizes, costs, marker="o", label=name)
    axis.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
