"""What all evaluators share: who is measured, on what, by which metrics, and the result that cards and plots read.

    evaluate(subject, material, metrics) -> Result

A subject makes something again of each original, in one or several versions (a codec with 1, 2, ... levels; methods of
enlarging), and every version is compared by every metric of ``mmtok.metrics.table``. An evaluator of films that have no
original, such as ``recipes.evaluate.prompts``, fills a ``Result`` by itself. A result names the weights that it
measured, so nobody can print it as the figures of another model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mmtok.files import add_file, write_json
from mmtok.metrics.table import Metric, Metrics
from mmtok.pretrained import BUNDLE_FILE, read_json, resolve_folder

# an item of the material to the original as it is compared, and what was made of it, by version
Again = Callable[[Any], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Subject:
    """Who is measured.

    What it makes of an item of the material, ``again``, is no part of the record.
    """

    name: str  # as it was asked for
    folder: str  # where its weights lie, "" for what was never saved
    weights: str  # sha256
    version: str  # of this code
    options: str = ""  # what it ran with that is not its own, such as "--lm-weights int8"
    again: Again | None = field(default=None, compare=False, repr=False)


def weights_of(model: Path | nn.Module) -> str:
    """sha256 of a model: its weights and the numbers that it samples by, or the tensors of a module in memory."""
    digest = hashlib.sha256()
    if isinstance(model, nn.Module):
        digest.update(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
        return digest.hexdigest()
    if not (files := sorted([*model.rglob("*.safetensors"), *model.rglob("config.json")])):
        raise FileNotFoundError(f"{model} holds no model that could be measured")
    if (model / BUNDLE_FILE).is_file():  # without the record of its training, which changes no figure
        digest.update(json.dumps(read_json(model / BUNDLE_FILE).get("config"), sort_keys=True).encode())
    for path in files:
        digest.update(path.relative_to(model).as_posix().encode())
        add_file(digest, path)
    return digest.hexdigest()


def subject_of(name: str, model: Path | nn.Module, again: Again | None = None) -> Subject:
    """A model or tokenizer as a subject.

    Args:
        name: as it was asked for.
        model: its folder, or a module that was never saved.
        again: what it makes of an item of the material; None where an evaluator needs none.

    Returns:
        The subject.
    """
    try:
        version = metadata.version("cinepoet")
    except metadata.PackageNotFoundError:
        version = "not installed"
    folder = "" if isinstance(model, nn.Module) else str(model)
    return Subject(name, folder, weights_of(model), version, again=again)


def subject_named(name: str, part: str = "", *, lm_weights: str | None = None) -> Subject:
    """A whole model or a tokenizer as a subject, by its name on the command line.

    Args:
        name: such as "tiny".
        part: of a whole model, such as "audio"; "" takes all of it.
        lm_weights: of the language model in memory where they are not its own, such as "int8".

    Returns:
        The subject.
    """
    folder = resolve_folder(name)
    subject = subject_of(name, folder / part if (folder / part).is_dir() else folder)
    options = "" if lm_weights in (None, "float32") else f"--lm-weights {lm_weights}"
    return dataclasses.replace(subject, options=options)


@dataclass(frozen=True)
class Material:
    """What is measured on."""

    told: str  # in words: how many of what, how they were chosen, made and cut
    items: Iterable[Any] = ()  # read once; what ``Subject.again`` takes
    left_out: list[str] = field(default_factory=list)  # a line for what could not be read, once the items have been


@dataclass(frozen=True)
class Result:
    """What was measured; cards, tables and plots read this and nothing else.

    null is a figure without bounds, such as the PSNR of equal pictures; one that could not be had is absent, and the
    protocol says why.
    """

    of: str  # the evaluator, such as "prompts"; the name of its file
    subject: Subject
    material: str
    protocol: dict[str, str]  # how, by figure
    figures: dict[str, Any]  # by name; numbers, or tables of numbers by version

    def record(self) -> dict[str, Any]:
        """As it is printed and saved."""
        told = ("name", "folder", "weights", "version", "options")
        return {
            "evaluate": self.of,
            "subject": {name: getattr(self.subject, name) for name in told},
            "material": self.material,
            "protocol": self.protocol,
            "figures": self.figures,
        }

    def tell(self, folder: Path | None = None) -> None:
        """Print it, and save it where a folder is given."""
        if folder is not None:
            self.save(folder)
        print(json.dumps(self.record(), indent=1))

    def save(self, folder: Path, name: str = "") -> Path:
        """Write it into a folder, in full or not at all.

        Args:
            folder: is made where it is not there.
            name: of the file; "" takes the evaluator's.

        Returns:
            The file.
        """
        path = folder / f"{name or self.of}.json"
        write_json(path, self.record())
        return path

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what ``save`` wrote.

        Args:
            path: the file.

        Returns:
            The result.

        Raises:
            FileNotFoundError: if it is absent, with the command that makes it.
            ValueError: if it holds something else, or is of before results named their model.
        """
        command = f"cinepoet evaluate {path.stem} --model M --out {path.parent}"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; make it with {command}")
        try:
            told = json.loads(path.read_text())
        except ValueError as fault:
            raise ValueError(f"{path} is damaged ({fault}); measure again with {command}") from fault
        if not isinstance(told, dict) or not isinstance(told.get("subject"), dict):
            raise ValueError(f"{path} does not say which model it measured; measure again with {command}")
        try:
            of = told["evaluate"]
            return cls(of, Subject(**told["subject"]), told["material"], told["protocol"], told["figures"])
        except (KeyError, TypeError) as fault:
            raise ValueError(f"{path} holds no whole result ({fault}); measure again with {command}") from fault

    def require_model(self, model: Path, path: Path, weights: str | None = None) -> Result:
        """This result, refused as the figures of another model.

        Args:
            model: folder of the model that it is wanted for.
            path: where it was read, for the message.
            weights: its ``weights_of`` where that is known, as reading a large model takes long.

        Returns:
            The same.

        Raises:
            ValueError: if other weights or numbers were measured, or not the model as it is.
        """
        wanted = weights or weights_of(model)
        if self.subject.weights != wanted:
            raise ValueError(
                f"{path} measured {self.subject.name} (weights {self.subject.weights[:12]}), not {model} (weights "
                f"{wanted[:12]}); measure it with cinepoet evaluate {self.of} --model {model} --out FOLDER"
            )
        if self.subject.options:
            raise ValueError(f"{path} measured the model with {self.subject.options}; a card states it as it is")
        return self


def _figures(metrics: Mapping[str, Metric], digits: int) -> dict[str, float | None]:
    """The figures that there are; JSON knows no infinity."""
    values = {name: metric.value() for name, metric in metrics.items()}
    told = {name: value for name, value in values.items() if not math.isnan(value)}
    return {name: None if math.isinf(value) else round(value, digits) for name, value in told.items()}


@torch.inference_mode()
def evaluate(
    of: str,
    subject: Subject,
    material: Material,
    metrics: Metrics,
    *,
    only: Mapping[str, Collection[str]] | None = None,
    digits: int = 4,
) -> Result:
    """Compare what a subject makes again of each original, in every version, by every metric.

    Args:
        of: the evaluator's name.
        subject: with ``again``; the first item tells its versions, and the first of these has all metrics.
        material: the originals.
        metrics: of one kind of media; what was left out of them stands in the protocol.
        only: versions that a few metrics suffice for, such as silence in the place of a sound.
        digits: behind the point of each figure.

    Returns:
        Version to figures, and the protocol of every metric.

    Raises:
        ValueError: if the material is empty.
    """
    assert subject.again is not None, "a subject without again is measured by an evaluator of its own"
    measured: dict[str, dict[str, Metric]] = {}
    for item in material.items:
        real, versions = subject.again(item)
        for version, again in versions.items():
            if version not in measured:  # beside the first version, which alone embeds the originals
                first = next(iter(measured.values()), None)
                chosen = (only or {}).get(version, metrics.ready)
                measured[version] = (
                    {n: m.another() for n, m in first.items() if n in chosen} if first else metrics.ready
                )
            for metric in measured[version].values():
                metric.update(real, again)
    if not measured:
        raise ValueError(f"there is nothing to measure: {material.told}")
    protocol = {name: metric.protocol for name, metric in metrics.ready.items()} | metrics.left_out
    figures = {version: _figures(its, digits) for version, its in measured.items()}
    return Result(of, dataclasses.replace(subject, again=None), material.told, protocol, figures)
