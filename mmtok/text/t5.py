"""The frozen text encoder: T5 vectors for a prompt, one a sentencepiece token, at most 64 of them.

VideoPoet (Kondratyuk et al. 2023, section 3.1 and A.5.1) feeds the language model the outputs of a frozen T5 XL encoder
(Raffel et al. 2020). One class loads published T5 folders (``google/t5-v1_1-xl``: 2048 wide, 24 layers) and our own
tiny ones; both are in the format of transformers, whose T5 computes the vectors. Prompts are split by the
``sentencepiece`` library itself: loading transformers' tokenizers would take longer than encoding the prompt. For the
same reason transformers is imported when a model is built.

Shape letters: b batch, n text positions, dim width of one vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmtok.files import write_atomically, write_tensors
from mmtok.find import find, require_known
from mmtok.pretrained import load_strictly, resolve_folder, weight_files

MAX_TEXT_LENGTH = 64  # "maximum of 64 text tokens", VideoPoet A.5.1; the end token is one of them
PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2  # of every published T5
_TIED = "encoder.embed_tokens.weight"  # the same tensor as shared.weight
_VOCABULARIES = ("spiece.model", "tokenizer.json")
_SPACE = "\u2581"  # how sentencepiece writes a space
_HUB_FILES = ("config.json", "model*.safetensors", *_VOCABULARIES)
_SHAPING = (  # config keys that change the vectors without changing a weight's shape
    "num_heads",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
    "feed_forward_proj",
)

# Encoders of T5 v1.1 (github.com/google-research/text-to-text-transfer-transformer); VideoPoet's "T5 XL" is 2048 wide.
PUBLISHED: dict[str, dict[str, int]] = {
    "small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "xl": {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "xxl": {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
}


def published_config(size: str) -> dict[str, Any]:
    """What config.json of a published T5 v1.1 says about its encoder.

    Args:
        size: a key of ``PUBLISHED``.

    Returns:
        Values for transformers' ``T5Config``.

    Raises:
        ValueError: for an unknown size, with the known ones.
    """
    sizes = find(PUBLISHED, size, "size of T5")
    shared = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, "feed_forward_proj": "gated-gelu"}
    return {**shared, "tie_word_embeddings": False, **sizes}


def empty_encoder(values: dict[str, Any]) -> Any:
    """transformers' ``T5EncoderModel`` of a config.json on the meta device: shapes without memory."""
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    with torch.device("meta"):
        return T5EncoderModel(T5Config.from_dict(values))


@dataclass(frozen=True)
class TokenizedText:
    """A prompt as T5 reads it.

    Attributes:
        ids: token ids, the end token last.
        kept: the words that ``ids`` stand for.
        cut: the words at the end that did not fit, "" when everything did.
        unknown: the words in ``kept`` that the vocabulary cannot write, or only byte by byte; "" when there is none.
    """

    ids: tuple[int, ...]
    kept: str
    cut: str
    unknown: str = ""


@dataclass(frozen=True)
class TextTokenizer:
    """A T5 vocabulary file and the function that splits text with it.

    Attributes:
        file_name: "spiece.model" or "tokenizer.json".
        content: the bytes of that file.
        split: text to ids without the end token.
        vocab_size: number of pieces; T5's sentinels come after them in sentencepiece files.
        space_id: id of the piece that is a space and nothing else, or None.
        is_spelled: whether an id stands for what has no piece: the unknown one, or a single byte.
    """

    file_name: str
    content: bytes
    split: Callable[[str], list[int]]
    vocab_size: int
    space_id: int | None = None
    is_spelled: Callable[[int], bool] = lambda token: token == UNKNOWN_ID

    @classmethod
    def from_bytes(cls, file_name: str, content: bytes) -> TextTokenizer:
        """Read a vocabulary.

        Args:
            file_name: "spiece.model" or "tokenizer.json"; says how to read ``content``.
            content: the bytes of the file.

        Returns:
            The tokenizer.

        Raises:
            ValueError: for another name, or a sentencepiece model whose pad and end ids are not T5's 0 and 1.
        """
        require_known(file_name, _VOCABULARIES, "vocabulary file")
        if file_name == "tokenizer.json":
            fast = Tokenizer.from_str(content.decode("utf-8"))
            fast.no_truncation()
            fast.no_padding()
            split = lambda text: list(fast.encode(text, add_special_tokens=False).ids)  # noqa: E731
            return cls(file_name, content, split, fast.get_vocab_size(), fast.token_to_id(_SPACE))
        pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        if (pieces.pad_id(), pieces.eos_id()) != (PAD_ID, EOS_ID):
            raise ValueError(f"not a T5 vocabulary: pad id {pieces.pad_id()} and end id {pieces.eos_id()}, not 0 and 1")
        split = lambda text: list(pieces.encode(text))  # noqa: E731
        is_spelled = lambda token: bool(pieces.is_unknown(token) or pieces.is_byte(token))  # noqa: E731
        return cls(file_name, content, split, pieces.vocab_size(), pieces.piece_to_id(_SPACE), is_spelled)

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Read spiece.model, or tokenizer.json when only that is there.

        Args:
            folder: a model folder.

        Returns:
            The tokenizer.

        Raises:
            FileNotFoundError: if the folder has neither.
        """
        for file_name in _VOCABULARIES:
            if (folder / file_name).is_file():
                return cls.from_bytes(file_name, (folder / file_name).read_bytes())
        raise FileNotFoundError(f"{folder} has neither spiece.model nor tokenizer.json")

    def tokenize(self, text: str, max_length: int = MAX_TEXT_LENGTH) -> TokenizedText:
        """Ids of a prompt, cut to whole words when it is too long, with the end token appended.

        transformers' truncation may end inside a word; here the cut is something one can tell the user.

        Args:
            text: the prompt; runs of white space count as one space.
            max_length: most ids, the end token included.

        Returns:
            The ids, and what was kept and cut.

        Raises:
            ValueError: if nothing is left of the prompt, or all of it is in a script that the vocabulary lacks.
        """
        words = text.split()
        ids = self.split(" ".join(words))
        if not ids:
            raise ValueError(f"the prompt {text!r} is empty; describe what should be seen or heard")
        if UNKNOWN_ID in ids and set(ids) <= {UNKNOWN_ID, self.space_id}:
            raise ValueError(f"the text encoder knows no letter of the prompt {text!r}; write it in another language")
        room = max_length - 1
        if len(ids) <= room:
            return self._told(ids, " ".join(words), "")

        # Longest beginning that fits: by words, or by letters when the first word alone is too long.
        whole = len(self.split(words[0])) <= room
        parts, joint = (words, " ") if whole else (list(" ".join(words)), "")
        low, high = 1 if whole else 0, len(parts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(self.split(joint.join(parts[:middle]))) <= room else (low, middle - 1)
        kept, cut = joint.join(parts[:low]), joint.join(parts[low:])
        return self._told(self.split(kept), kept, cut)

    def _told(self, ids: list[int], kept: str, cut: str) -> TokenizedText:
        """With the end token and the words that the vocabulary cannot write in pieces."""
        strange = any(map(self.is_spelled, ids))
        words = [word for word in kept.split() if any(map(self.is_spelled, self.split(word)))] if strange else []
        return TokenizedText((*ids, EOS_ID), kept, cut, " ".join(words))


def _fetch(name: str | Path, revision: str | None = None) -> Path:
    """``resolve_folder`` that leaves TensorFlow, Flax and pickled files of a hub repository where they are."""
    if Path(name).is_dir() and revision == _origin_of(Path(name))[1]:
        revision = None  # a snapshot of that very commit
    return resolve_folder(name, revision=revision, wanted=_HUB_FILES)


def _origin_of(folder: Path) -> tuple[str, str | None]:
    """Hub id and commit of a snapshot, which its folders' names tell; the name alone of another folder."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/"), folder.name
    return folder.name, None


def _weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors; pickles are somebody else's work."""
    files = weight_files(folder)
    if not files:
        pickled = next((f.name for f in sorted(folder.glob("*.bin"))), "pytorch_model.bin")
        raise FileNotFoundError(
            f"{folder} has no model.safetensors, and pickled weights are not loaded; `cinepoet convert {pickled} --out "
            "NEW` reads them without running anything in them and keeps the encoder alone"
        )
    return files


def _encoder_tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Encoder weights, mapped from disk where they have that type already; a decoder beside them is not read."""
    tensors: dict[str, Tensor] = {}
    unused: list[str] = []
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a mapping)
                    if is_encoder_weight(name):
                        tensors[name] = weights.get_tensor(name).to(dtype)
                    elif not name.startswith(("decoder.", "lm_head.")):
                        unused.append(name)
        except SafetensorError as fault:
            raise ValueError(f"{file} is damaged: {fault}") from fault
    if unused:
        raise ValueError(f"{folder} holds weights that are not T5's: {unused}")
    return tensors


def is_encoder_weight(name: str) -> bool:
    """Whether a weight of a published T5 is the encoder's, and not the decoder's or the output head's."""
    return name == "shared.weight" or name.startswith("encoder.")


def _refuse_half(dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        raise ValueError("dtype float16 overflows in T5; use bfloat16 or float32")


class T5TextEncoder(nn.Module):
    """Prompts to frozen T5 vectors: always in evaluation mode, never a gradient.

    Args:
        model: transformers' ``T5EncoderModel``.
        tokenizer: its vocabulary.
        max_length: most positions returned, the end token included.
        name: hub id, or name of the folder, that it came from; for reports.
        revision: commit of the hub repository, None where there is none.

    Attributes:
        dim: width of one vector.
        max_length: as given.
        name: as given.
        revision: as given.

    Raises:
        ValueError: if ``max_length`` leaves no room for a token and the end.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer,
        *,
        max_length: int = MAX_TEXT_LENGTH,
        name: str = "",
        revision: str | None = None,
    ):
        super().__init__()
        if max_length < 2:
            raise ValueError(f"max_length ({max_length}) must be at least 2: one token and the end")
        self.model = model
        self.tokenizer = tokenizer
        self.config = model.config
        self.dim: int = self.config.d_model
        self.max_length = max_length
        self.name, self.revision = name, revision
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        max_length: int = MAX_TEXT_LENGTH,
    ) -> T5TextEncoder:
        """Load the encoder half of a T5 in the format of transformers.

        Weights that have the wanted type on disk are mapped into memory rather than copied, so that a process that
        loads XL in bfloat16 needs 2.4 GB, once for all processes that load the same files.

        Args:
            name: a folder with config.json, safetensors and spiece.model (or tokenizer.json), or a hub id.
            revision: branch, tag or commit of a hub id; None takes the newest, and ``self.revision`` says which.
            dtype: of the weights and of the computation; bfloat16 halves the memory of the XL model.
            device: where it computes.
            max_length: most positions returned.

        Returns:
            The frozen encoder.

        Raises:
            FileNotFoundError: if the folder, or one of its files, is not there, or its weights are pickled.
            ValueError: if it is not a T5, its weights do not fit, ``dtype`` is float16, or a folder is asked for a
                revision.
        """
        _refuse_half(dtype)
        folder = _fetch(name, revision)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json")
        values = json.loads((folder / "config.json").read_text())
        if values.get("model_type") != "t5":
            raise ValueError(f"{folder} is not a T5: its config.json says model_type {values.get('model_type')!r}")
        tokenizer = TextTokenizer.from_folder(folder)
        tensors = _encoder_tensors(folder, dtype)
        origin, commit = _origin_of(folder)
        return cls.from_tensors(
            tensors, values, tokenizer, device=device, max_length=max_length, name=origin, revision=commit
        )

    @classmethod
    def from_tensors(
        cls,
        tensors: dict[str, Tensor],
        values: dict[str, Any],
        tokenizer: TextTokenizer,
        *,
        device: torch.device | str = "cpu",
        max_length: int = MAX_TEXT_LENGTH,
        name: str = "",
        revision: str | None = None,
    ) -> T5TextEncoder:
        """An encoder around weights that are in memory already; they are taken over, not copied.

        Args:
            tensors: published name to tensor, the encoder's alone and of one type.
            values: of config.json.
            tokenizer: the vocabulary.
            device: where it computes.
            max_length: most positions returned.
            name: as of the class.
            revision: as of the class.

        Returns:
            The frozen encoder.

        Raises:
            ValueError: if the weights do not fit the config.
        """
        tensors = dict(tensors)
        if "shared.weight" not in tensors and _TIED in tensors:
            tensors["shared.weight"] = tensors[_TIED]
        if "shared.weight" in tensors:
            tensors[_TIED] = tensors["shared.weight"]
        model = empty_encoder(values)
        load_strictly(model, tensors, assign=True)
        model.encoder.embed_tokens = model.shared
        return cls(model.to(device), tokenizer, max_length=max_length, name=name, revision=revision)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json, model.safetensors (the encoder only) and the vocabulary, readable by transformers too.

        Args:
            folder: created when absent; each file is written under a temporary name first.
            dtype: float type on disk, or None to keep the model's.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items() if k != _TIED}
        if dtype is not None:
            tensors = {k: v.to(dtype) for k, v in tensors.items()}
        config = {**self.config.to_dict(), "architectures": ["T5EncoderModel"]}
        config["dtype"] = str(tensors["shared.weight"].dtype).removeprefix("torch.")
        write_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
        write_atomically(folder / self.tokenizer.file_name, self.tokenizer.content)
        write_atomically(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")

    def train(self, mode: bool = True) -> T5TextEncoder:
        """Stay in evaluation mode, also inside a model that trains; parents call it with any ``mode``."""
        del mode
        return super().train(False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary, the weights (dtype included) and the numbers that shape the computation."""
        digest = hashlib.sha256(self.tokenizer.content)
        digest.update(json.dumps({k: getattr(self.config, k) for k in _SHAPING}, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of the computation."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so the vectors."""
        return next(self.model.parameters()).device

    def tokenize(self, text: str) -> TokenizedText:
        """What the encoder reads of a prompt.

        Args:
            text: the prompt.

        Returns:
            Its ids, and the words kept and cut.

        Raises:
            ValueError: if the prompt is empty.
        """
        return self.tokenizer.tokenize(text, self.max_length)

    def encode(self, texts: list[str], *, pad_to: int | None = None) -> tuple[Tensor, Tensor]:
        """T5 vectors of prompts; of a prompt that is too long, its beginning (``tokenize`` says what is cut).

        Autocast around the call is ignored, so that a vector does not depend on who asked for it.

        Args:
            texts: b prompts, none of them empty.
            pad_to: number of positions to return, or None for those of the longest prompt.

        Returns:
            (b, n, dim) float32, zero where there is no token, and the (b, n) bool mask, True where there is one.

        Raises:
            ValueError: if there is no prompt, one is empty or of letters that the vocabulary lacks, ``pad_to`` is
                shorter than the longest, or somebody made the weights float16.
        """
        _refuse_half(self.dtype)
        if not texts:
            raise ValueError("no prompts to encode")
        rows = [torch.tensor(self.tokenize(text).ids) for text in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID)  # (b, n)
        length = ids.shape[1]
        if pad_to is not None and pad_to < length:
            raise ValueError(f"pad_to ({pad_to}) is shorter than the longest prompt ({length} tokens)")
        mask = torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
        ids, mask = ids.to(self.device), mask.to(self.device)

        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            hidden = hidden.float().masked_fill(~mask[..., None], 0.0)
        embeddings = hidden.clone()  # a normal tensor again: a trainable projection may follow

        if pad_to is not None:
            embeddings = nn.functional.pad(embeddings, (0, 0, 0, pad_to - length))
            mask = nn.functional.pad(mask, (0, pad_to - length))
        return embeddings, mask


def read_prompts(tokenizer: TextTokenizer, prompts: Sequence[str], *, most: int, notes: list[str]) -> list[str]:
    """The parts of prompts that fit, with notes about what was cut and about words that the vocabulary lacks.

    Args:
        tokenizer: of the text encoder.
        prompts: texts.
        most: ids that a prompt may have, the end token included.
        notes: receives one line for each thing that a user should know.

    Returns:
        The prompts, cut to whole words.
    """
    kept = []
    for prompt in prompts:
        read = tokenizer.tokenize(prompt, most)
        kept.append(read.kept)
        if read.cut:
            notes.append(f"the prompt is longer than {most} tokens; left out: {read.cut!r}")
        if strange := read.unknown.split():
            notes.append(f"the text encoder has no pieces for {', '.join(map(repr, strange))}: it hardly knows them")
    return kept
