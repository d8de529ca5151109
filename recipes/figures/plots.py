"""Plots: panels of curves, of whatever was measured or logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtok.files import writing
from mmtok.metrics.table import title_of


@dataclass(frozen=True)
class Curve:
    """A line of a panel."""

    x: Sequence[float]  # places; none for a level over the whole width
    y: Sequence[float]
    label: str = ""  # in the legend, "" to leave it out
    style: Mapping[str, Any] = field(default_factory=dict)  # of matplotlib's ``plot``, such as {"marker": "o"}


def plot_panels(
    path: Path,
    panels: Mapping[str, Sequence[Curve]],
    *,
    columns: int = 3,
    size: tuple[float, float] = (5, 3.4),
    xlabel: str = "",
    title: str = "",
    finish: Callable[[Any], None] | None = None,
    dpi: int = 90,
) -> None:
    """Write a PNG with one panel a figure; nothing where there are no panels.

    Args:
        path: the file, replaced in full or not at all.
        panels: title to curves.
        columns: panels in a row, at most.
        size: of a panel, inches wide and high.
        xlabel: of every panel.
        title: of the whole picture.
        finish: has the last word on each matplotlib ``Axes``, such as its scale and ticks.
        dpi: pixels an inch.
    """
    if not panels:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(columns, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(size[0] * columns, size[1] * lines), squeeze=False)
    for axis, (name, curves) in zip(axes.flat, panels.items(), strict=False):
        for curve in curves:
            label = {"label": curve.label} if curve.label else {}
            if len(curve.x):
                axis.plot(curve.x, curve.y, **label, **curve.style)
            else:
                axis.axhline(curve.y[0], **label, **curve.style)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(xlabel, fontsize=8)
        axis.grid(alpha=0.3)
        if finish is not None:
            finish(axis)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    if any(curve.label for curve in next(iter(panels.values()))):
        axes.flat[0].legend(fontsize=8)
    if title:
        figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as scratch:
        figure.savefig(scratch, dpi=dpi)
    plt.close(figure)


def plot_steps(sets: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Figures against decoding steps, a panel a figure; bicubic is dotted, of tokens dot-dashed, the ceiling dashed.

    Args:
        sets: name to "methods" and "steps", as in the figures of ``recipes.evaluate.superres``.
        path: PNG.
    """
    curves = {told: measured for told, measured in sets.items() if measured.get("steps")}
    names = [*next(iter(curves.values()))["methods"]["ours"], "seconds_per_clip"]
    panels: dict[str, list[Curve]] = {name: [] for name in names}
    for number, (told, measured) in enumerate(curves.items()):
        counts = sorted(measured["steps"], key=int)
        for name, panel in panels.items():
            values = [measured["steps"][count][name] for count in counts]
            own = {"marker": "o", "color": f"C{number}"}
            panel.append(Curve([int(count) for count in counts], values, told, own))
            for method, style in (("bicubic", ":"), ("bicubic_of_tokens", "-."), ("ceiling", "--")):
                level = measured["methods"][method].get(name)
                if level is not None:
                    panel.append(Curve([], [level], style={"color": f"C{number}", "linestyle": style, "linewidth": 1}))
    plot_panels(path, panels, columns=len(names), size=(3.6, 3.2), xlabel="decoding steps")


def plot_rates(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Bits against distortion: a panel a figure, a line a tokenizer.

    Args:
        results: name to figures with "levels", as of ``recipes.evaluate.audio_tokenizer``.
        path: PNG.
    """
    rows = {told: figures["levels"] for told, figures in results.items()}
    names = dict.fromkeys(name for levels in rows.values() for row in levels for name in row)
    panels = {}
    for name in names:
        if name in ("levels", "kbps"):
            continue
        points = {told: [(row["kbps"], row[name]) for row in levels if name in row] for told, levels in rows.items()}
        panels[title_of(name)] = [
            Curve([p[0] for p in its], [p[1] for p in its], told, {"marker": "o"})
            for told, its in points.items()
            if its
        ]
    plot_panels(path, panels, xlabel="kbit/s")


def plot_costs(sizes: list[int], curves: dict[str, list[float]], path: Path, *, x: str, y: str) -> None:
    """What growing work costs, on two logarithmic axes.

    Args:
        sizes: of the work.
        curves: name to the cost at each size.
        path: PNG.
        x: what a size is.
        y: what a cost is.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    def in_powers(axis: Any) -> None:
        axis.set(xscale="log", yscale="log", ylabel=y)
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())

    drawn = [Curve(sizes, costs, name, {"marker": "o"}) for name, costs in curves.items()]
    plot_panels(path, {"": drawn}, size=(6, 4), xlabel=x, finish=in_powers)
