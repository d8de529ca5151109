"""Saving and loading any of our models: ``config.json`` beside ``model.safetensors``, strictly and never unpickled."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from mmtok.files import write_json, write_tensors
from mmtok.plugins import entry_points
from mmtok.table import MODELS

if TYPE_CHECKING:
    from typing_extensions import Self

P = TypeVar("P")
BUNDLE_FILE = "cinepoet.json"  # marks the folder of a whole model, which holds its parts in folders of these names
PARTS = ("visual", "audio", "text", "lm", "superres")
OPTIONAL_PARTS = ("superres_visual", "superres2")
_MODELS_GROUP = "cinepoet.models"
# what we read of a hub repository; never pickles
_WANTED = ("*.json", "*.safetensors", "*.model", "*.md")
ROW_SCALE = "::row_scale"  # suffix of the scales beside an int8 matrix
_SHARD_NAME = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_KEPT = (torch.float16, torch.bfloat16, torch.float32)


def known_models() -> list[str]:
    """Sorted names of whole models that have one, embedded ones and those of installed packages."""
    return sorted({*MODELS, *(point.name for point in entry_points(_MODELS_GROUP))})


def _model_folder(name: str) -> Path | None:
    """Where a whole model of that name lies, or None."""
    package = MODELS.get(name) or next((p.value for p in entry_points(_MODELS_GROUP) if p.name == name), None)
    if package is None:
        return None
    try:
        spec = importlib.util.find_spec(package)
    except ImportError as fault:
        raise FileNotFoundError(f"the model {name} should lie in the package {package} ({fault})") from fault
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise FileNotFoundError(f"the model {name} should lie in the package {package}, which is not there")
    return Path(places[0])


def _split_part(name: str, depth: int) -> tuple[str, str]:
    """A name of ``depth`` words and the part of a whole model behind it, "" without."""
    whole, _, part = name.rpartition("/")
    return (whole, part) if part in (*PARTS, *OPTIONAL_PARTS) and whole.count("/") == depth - 1 else (name, "")


def resolve_folder(name: str | Path, *, revision: str | None = None, wanted: Sequence[str] = _WANTED) -> Path:
    """The local folder of a model, or of a part of a whole model.

    Args:
        name: a name of ``known_models()`` such as "tiny" (which goes before a folder of that name: ``./tiny``), a
            folder, a hub id such as "google/t5-v1_1-xl", or a part of one of these: "tiny/audio", "owner/model/audio".
        revision: of a hub id, or None for the newest.
        wanted: patterns of the files of a hub repository that are fetched.

    Returns:
        A folder that exists.

    Raises:
        FileNotFoundError: if there is no such thing, with the known names.
        ValueError: if it is a file, or a revision is asked for of something that is not on the hub.
    """
    text, folder = str(name), Path(name)
    if not text.strip():
        raise ValueError(f"the name of a model is empty; known: {', '.join(known_models())}")
    text = text.rstrip("/") or text
    whole, part = _split_part(text, 1)
    hub_id, hub_part = _split_part(text, 2)
    found = None if "/" in whole else _model_folder(whole)
    if found is not None:
        folder = found / part
    elif folder.is_dir():
        part = ""
    elif "/" in text and (first := _model_folder(text.split("/")[0])) is not None:  # a hub owner may not be meant
        there = ", ".join(p for p in (*PARTS, *OPTIONAL_PARTS) if (first / p).is_dir())
        raise FileNotFoundError(f"unknown model {text!r}: {text.split('/')[0]} is embedded, and its parts are {there}")
    elif folder.is_file():
        raise ValueError(f"{name} is a file; cinepoet convert makes a folder of published weights")
    elif folder.is_absolute() or hub_id.count("/") != 1 or hub_id.startswith("."):
        raise FileNotFoundError(f"unknown model {text!r}: it is not a folder; known: {', '.join(known_models())}")
    else:
        try:
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(wanted))) / hub_part
        except (OSError, HFValidationError, ValueError) as fault:
            reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
            asked = f"{name} at revision {revision}" if revision else text
            raise FileNotFoundError(
                f"unknown model {asked!r}: it is neither a folder nor a reachable hub repository ({reason}); "
                f"known: {', '.join(known_models())}"
            ) from fault
        part, revision = hub_part, None
    if part and not folder.is_dir():
        raise FileNotFoundError(f"the model {folder.parent} has no {part} part")
    if revision is not None:
        raise ValueError(f"revision {revision!r} is a choice for hub ids, and {name} is a folder")
    return folder


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Args:
        file: the file.

    Returns:
        Its value.

    Raises:
        ValueError: if it is no JSON.
    """
    try:
        return json.loads(file.read_text())
    except ValueError as fault:  # also what is no text
        raise ValueError(f"{file} is not valid JSON: {fault}") from fault


def read_config(folder: Path, family: str | None = None) -> dict[str, Any]:
    """The content of config.json, checked for its family.

    Args:
        folder: a model folder.
        family: the family that the caller can build, or None for any.

    Returns:
        ``{"family": ..., "params": {...}, ...}``.

    Raises:
        FileNotFoundError: if there is no config.json.
        ValueError: if it is not ours or of another family.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no config.json")
    config = read_json(file)
    if not isinstance(config, dict) or "family" not in config or "params" not in config:
        raise ValueError(f"{file} is not a cinepoet model config (no family or params)")
    if family is not None and config["family"] != family:
        raise ValueError(f"{file} describes a {config['family']!r} model, expected {family!r}")
    return config


def params_from_config(cls: type[P], values: dict[str, Any]) -> P:
    """The frozen params dataclass from JSON values; lists become tuples, unknown keys raise.

    Args:
        cls: the dataclass.
        values: ``config["params"]``.

    Returns:
        An instance of ``cls``.

    Raises:
        ValueError: naming unknown or missing keys.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    missing = sorted(n for n, f in fields.items() if n not in values and f.default is dataclasses.MISSING)
    if unknown or missing:
        raise ValueError(f"{cls.__name__}: unknown keys {unknown}, missing keys {missing}")

    def tupled(value: Any) -> Any:
        return tuple(tupled(v) for v in value) if isinstance(value, list) else value

    return cls(**{k: tupled(v) for k, v in values.items()})


def _rounded_rows(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as int8 with one float32 scale a row (first axis); the largest entry of a row becomes 127."""
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(1).clamp(min=1e-12) / 127
    return (rows / scale[:, None]).round().to(torch.int8).view_as(tensor), scale


def save_module(
    module: nn.Module, folder: str | Path, *, family: str, params: Any, dtype: torch.dtype | None = None, **extra: Any
) -> None:
    """Write ``module`` to ``folder`` as config.json and model.safetensors, each under a temporary name first.

    Args:
        module: the model; tied tensors are stored once.
        folder: created when absent.
        family: name that ``mmtok.load`` looks up.
        params: the model's params dataclass.
        dtype: float type on disk, or None to keep the module's. ``torch.int8`` stores matrices of 4096 entries or more
            in one byte an entry with a scale for each row, and all else as float16; the error is at most 0.4 % of a
            row's largest entry.
        extra: further JSON values for config.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in module.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        kept = tensor.detach().cpu().contiguous()
        if dtype is None or kept.dtype not in _KEPT:
            tensors[name] = kept
        elif dtype is torch.int8 and kept.ndim >= 2 and kept.numel() >= 4096:
            tensors[name], tensors[name + ROW_SCALE] = _rounded_rows(kept)
        else:
            tensors[name] = kept.to(torch.float16 if dtype is torch.int8 else dtype)
    write_tensors(tensors, folder / "model.safetensors")
    save_config(folder, family=family, params=params, **extra)


def save_config(folder: Path, *, family: str, params: Any, **extra: Any) -> None:
    """Write config.json under a temporary name first.

    Args:
        folder: a model folder.
        family: name that ``mmtok.load`` looks up.
        params: the model's params dataclass.
        extra: further JSON values.
    """
    write_json(folder / "config.json", {"family": family, "params": dataclasses.asdict(params), **extra})


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder of transformers, whole or in shards.

    Args:
        folder: a model folder.

    Returns:
        model.safetensors, or all shards in order, or nothing.

    Raises:
        FileNotFoundError: if a shard is missing.
    """
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    shards = sorted(f for f in folder.glob("model-*.safetensors") if _SHARD_NAME.fullmatch(f.name))
    counts = {found[1] for f in shards if (found := _SHARD_NAME.fullmatch(f.name))}
    if len(counts) > 1 or any(int(count) != len(shards) for count in counts):
        expected = " or ".join(str(int(count)) for count in sorted(counts))
        raise FileNotFoundError(f"{folder} has {len(shards)} of {expected} shards: {', '.join(f.name for f in shards)}")
    return shards


def load_tensors(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    """The tensors of a file of weights; floating ones as float32.

    Args:
        folder: a model folder.
        name: of the file in it.

    Returns:
        Name to tensor.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged.
    """
    file = Path(folder) / name
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {name}")
    try:
        tensors = load_file(file)
    except SafetensorError as fault:
        raise ValueError(f"{file} is damaged: {fault}") from fault
    for name in [k for k in tensors if k.endswith(ROW_SCALE)]:
        scale, matrix = tensors.pop(name), tensors[name.removesuffix(ROW_SCALE)]
        rows = matrix.float().flatten(1) * scale[:, None]
        tensors[name.removesuffix(ROW_SCALE)] = rows.view(matrix.shape)
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def read_names(folder: str | Path) -> tuple[str, ...]:
    """Names of the tensors in model.safetensors, from its header.

    Args:
        folder: a model folder.

    Returns:
        The names; none if there is no such file or it is damaged.
    """
    file = Path(folder) / "model.safetensors"
    if not file.is_file():
        return ()
    try:
        with safe_open(file, "pt") as stored:
            return tuple(stored.keys())
    except SafetensorError:
        return ()


def load_strictly(
    module: nn.Module, tensors: dict[str, torch.Tensor], *, tied: tuple[str, ...] = (), assign: bool = False
) -> None:
    """``load_state_dict`` that lists every missing, unused and misshapen name in one message.

    Args:
        module: receives the tensors.
        tensors: name to tensor.
        tied: names that share storage with another and are absent from the file.
        assign: take the tensors themselves, with their type and device, instead of copying into the module's.

    Raises:
        ValueError: if the names or shapes do not match.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors) - set(tied))
    unused = sorted(set(tensors) - set(own))
    shapes = [
        f"{k}: {tuple(v.shape)} in the file, {tuple(own[k].shape)} in the model"
        for k, v in tensors.items()
        if k in own and own[k].shape != v.shape
    ]
    if missing or unused or shapes:
        raise ValueError(f"weights do not fit: missing {missing}, unused {unused}, shapes {shapes}")
    module.load_state_dict(tensors, strict=False, assign=assign)


class PretrainedModule(nn.Module):
    """Base of models that are made from a dataclass of sizes and live in a folder of their own (``Stored``).

    Attributes:
        family: name of the kind in config.json.
        params_class: dataclass of the sizes.
        params: the sizes.
    """

    family: str
    params_class: ClassVar[type]
    params: Any

    @classmethod
    def empty(cls, params: Any) -> Self:
        """A model whose weights are memory that nobody wrote, to be loaded into; skips the costly initialisation.

        Args:
            params: the sizes.

        Returns:
            The model on the CPU.
        """
        with torch.device("meta"):
            model = cls(params)
        model = model.to_empty(device="cpu")
        for module in model.modules():
            reset: Any = getattr(module, "reset_buffers", None)  # of constants that files leave out
            if reset is not None:
                reset()
        return model

    def _beside(self) -> dict[str, Any]:
        """What config.json says besides the sizes."""
        return {}

    def _take(self, config: dict[str, Any], folder: Path) -> None:
        """Check or take what ``_beside`` wrote."""

    def _tied(self) -> tuple[str, ...]:
        """Names that share storage with another and are absent from the file."""
        return ()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors.

        Args:
            folder: created when absent.
            dtype: float type on disk, or None to keep the model's; ``torch.int8`` see ``save_module``.
        """
        save_module(self, folder, family=self.family, params=self.params, dtype=dtype, **self._beside())

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """Load a saved model in float32, ready to use.

        Args:
            name: folder or hub id.

        Returns:
            The model in eval mode.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if config or weights do not fit this code.
        """
        folder = resolve_folder(name)
        return cls._loaded(read_config(folder, cls.family), folder)

    @classmethod
    def _loaded(cls, config: dict[str, Any], folder: Path) -> Self:
        """The model of a folder whose config.json was read."""
        model = cls.empty(params_from_config(cls.params_class, config["params"]))
        model._take(config, folder)
        load_strictly(model, load_tensors(folder), tied=model._tied())
        return model.eval()
