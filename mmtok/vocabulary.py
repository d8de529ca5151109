"""The unified vocabulary: special ids, then visual codes, then audio codes level by level (VideoPoet A.5.1).

    0 .. 255                  special ids and task values
    256 .. 256 + V - 1        visual codes, id = 256 + code
    256 + V + C * level + c   audio code c of residual level ``level``, levels disjoint

VideoPoet publishes the sizes of the blocks and their order, not the single special ids; the table below is ours and is
written beside every model. Shape letters: b batch, k residual levels, t frames, n sequence.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtok.audio.orders import flatten, unflatten
from mmtok.contract import AudioTokenizer, VisualTokenizer, require_range
from mmtok.find import find

NUM_SPECIAL = 256

SPECIAL_IDS: dict[str, int] = {
    "<pad>": 0,
    "<mask>": 1,
    "<bos>": 2,
    "<eos>": 3,
    "<bot_i>": 4,
    "<eot_i>": 5,
    "<bov_i>": 6,
    "<eov_i>": 7,
    "<boa_i>": 8,
    "<eoa_i>": 9,
    "<bov_o>": 10,
    "<eov_o>": 11,
    "<boa_o>": 12,
    "<eoa_o>": 13,
}

# Families of numbered values; an index selects one, e.g. resolution 0 is VideoPoet's 128x224 portrait.
FAMILY_IDS: dict[str, range] = {
    "resolution": range(16, 32),
    "duration": range(32, 48),
    "source": range(48, 64),
    "task": range(64, 128),
}

# One value for each distinct kind of output (VideoPoet section 4.1). Text to video, image to video, text to image and
# unconditioned video share the first: whether sound follows the picture is decided behind <eov_o>, not by the task.
TASK_IDS: dict[str, int] = {
    "generate_video": 64,
    "continue_video": 65,
    "paint": 66,
    "stylize": 67,
    "generate_audio": 68,
    "continue_av": 69,
}


@dataclass(frozen=True)
class Block:
    """A range of ids, ``start`` included and ``stop`` excluded.

    Attributes:
        start: first id.
        stop: one past the last id.
    """

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, value: int) -> bool:
        return self.start <= value < self.stop


@dataclass(frozen=True)
class Vocabulary:
    """Id ranges built from the sizes that the tokenizers declare.

    Attributes:
        visual_codes: entries of the visual codebook.
        audio_levels: residual levels of the audio tokenizer, 0 without sound.
        audio_codes: entries of one level, 0 without sound.
    """

    visual_codes: int
    audio_levels: int = 0
    audio_codes: int = 0

    def __post_init__(self) -> None:
        if self.visual_codes < 1:
            raise ValueError(f"visual_codes must be positive, got {self.visual_codes}")
        if (self.audio_levels == 0) != (self.audio_codes == 0) or min(self.audio_levels, self.audio_codes) < 0:
            raise ValueError(
                f"audio_levels ({self.audio_levels}) and audio_codes ({self.audio_codes}) must both be positive, or 0"
            )

    @classmethod
    def of(cls, visual: VisualTokenizer, audio: AudioTokenizer | None = None) -> Vocabulary:
        """The vocabulary of a pair of tokenizers.

        Args:
            visual: the video tokenizer; one codebook.
            audio: the sound tokenizer, or None.

        Returns:
            The vocabulary.

        Raises:
            ValueError: if the visual tokenizer has parallel codebooks.
        """
        if visual.num_codebooks != 1:
            raise ValueError(f"the visual tokenizer must have one codebook, got num_codebooks={visual.num_codebooks}")
        levels, codes = (audio.num_codebooks, audio.codebook_size) if audio is not None else (0, 0)
        return cls(visual_codes=visual.codebook_size, audio_levels=levels, audio_codes=codes)

    @property
    def special(self) -> Block:
        """Ids of markers, control values and tasks."""
        return Block(0, NUM_SPECIAL)

    @property
    def visual(self) -> Block:
        """Ids of visual codes."""
        return Block(NUM_SPECIAL, NUM_SPECIAL + self.visual_codes)

    @property
    def audio(self) -> Block:
        """Ids of the audio codes of all levels."""
        start = self.visual.stop
        return Block(start, start + self.audio_levels * self.audio_codes)

    def audio_level(self, level: int) -> Block:
        """Ids of one residual level, from 0; ValueError if there is no such level."""
        if not 0 <= level < self.audio_levels:
            raise ValueError(f"audio level must lie in [0, {self.audio_levels}), got {level}")
        start = self.audio.start + level * self.audio_codes
        return Block(start, start + self.audio_codes)

    @property
    def size(self) -> int:
        """Ids in use."""
        return self.audio.stop

    @property
    def vocab_size(self) -> int:
        """Rows of an embedding: ``size`` rounded up to a multiple of 128."""
        return -(-self.size // 128) * 128

    @property
    def pad_id(self) -> int:
        """Id of <pad>."""
        return SPECIAL_IDS["<pad>"]

    @property
    def bos_id(self) -> int:
        """Id of <bos>."""
        return SPECIAL_IDS["<bos>"]

    @property
    def eos_id(self) -> int:
        """Id of <eos>."""
        return SPECIAL_IDS["<eos>"]

    def special_id(self, name: str) -> int:
        """The id of a marker such as ``"<bov_o>"``; ValueError for an unknown one, with the known ones."""
        return find(SPECIAL_IDS, name, "special token")

    def family_id(self, family: str, index: int) -> int:
        """The id of value ``index`` of a family of control values.

        Args:
            family: "resolution", "duration", "source" or "task".
            index: from 0.

        Returns:
            The id.

        Raises:
            ValueError: for an unknown family or an index outside it.
        """
        ids = find(FAMILY_IDS, family, "family")
        if not 0 <= index < len(ids):
            raise ValueError(f"{family} index must lie in [0, {len(ids)}), got {index}")
        return ids[index]

    def task_id(self, task: str) -> int:
        """The id of a task value of ``TASK_IDS``; ValueError for an unknown one, with the known ones."""
        return find(TASK_IDS, task, "task value")

    def visual_to_ids(self, codes: Tensor) -> Tensor:
        """Flatten visual codes in raster order, frames in time order, and move them into their block.

        Args:
            codes: (b, 1, *grid) integers in [0, visual_codes).

        Returns:
            (b, n) int64 ids.

        Raises:
            ValueError: if the shape or a value is wrong.
        """
        if codes.ndim < 3 or codes.shape[1] != 1:
            raise ValueError(f"visual codes must have shape (b, 1, *grid), got {tuple(codes.shape)}")
        require_range(codes, self.visual_codes, "visual codes")
        return codes.flatten(1).long() + self.visual.start

    def ids_to_visual(self, ids: Tensor, grid: tuple[int, ...]) -> Tensor:
        """The inverse of ``visual_to_ids``.

        Args:
            ids: (b, n) ids of the visual block.
            grid: the token grid; its product is n.

        Returns:
            (b, 1, *grid) int64 codes.

        Raises:
            ValueError: if an id lies outside the block or the grid does not fit.
        """
        codes = ids - self.visual.start
        require_range(codes, self.visual_codes, "visual codes")
        if ids.ndim != 2 or ids.shape[1] != torch.Size(grid).numel():
            raise ValueError(f"ids of shape {tuple(ids.shape)} do not fill the grid {tuple(grid)}")
        return codes.reshape(ids.shape[0], 1, *grid)

    def audio_to_ids(self, codes: Tensor, order: str = "level") -> Tensor:
        """Flatten audio codes and move them into their blocks.

        Args:
            codes: (b, audio_levels, t) integers in [0, audio_codes).
            order: of ``mmtok.audio.orders``; "level" is the whole clip at level 0 first.

        Returns:
            (b, audio_levels * t) int64 ids; in the order "delay" more, with <pad> at its empty places.

        Raises:
            ValueError: if the order is unknown, or the shape or a value is wrong.
        """
        if codes.ndim != 3 or codes.shape[1] != self.audio_levels:
            raise ValueError(f"audio codes must have shape (b, {self.audio_levels}, t), got {tuple(codes.shape)}")
        require_range(codes, self.audio_codes, "audio codes")
        return flatten(codes.long() + self._level_starts(codes.device), order, pad=self.pad_id)

    def ids_to_audio(self, ids: Tensor, order: str = "level") -> Tensor:
        """The inverse of ``audio_to_ids``.

        Args:
            ids: (b, n) ids.
            order: in which they stand.

        Returns:
            (b, audio_levels, t) int64 codes.

        Raises:
            ValueError: if the order is unknown, no number of frames gives that length, or an id is of another level's
                block.
        """
        codes = unflatten(ids, order, self.audio_levels, pad=self.pad_id) - self._level_starts(ids.device)
        require_range(codes, self.audio_codes, "audio codes")
        return codes

    def _level_starts(self, device: torch.device) -> Tensor:
        """(audio_levels, 1) first id of each level."""
        return self.audio.start + self.audio_codes * torch.arange(self.audio_levels, device=device)[:, None]

    def require(self, visual: VisualTokenizer, audio: AudioTokenizer | None = None) -> None:
        """Raise unless these tokenizers have the layout that this vocabulary was built from.

        Args:
            visual: the video tokenizer.
            audio: the sound tokenizer, or None for a use without sound, which any vocabulary allows.

        Raises:
            ValueError: with every difference in one message.
        """
        theirs = Vocabulary.of(visual, audio)
        names = ["visual_codes"] if audio is None else ["visual_codes", "audio_levels", "audio_codes"]
        faults = [
            f"{name} is {getattr(theirs, name)} in the tokenizers, {getattr(self, name)} in the model"
            for name in names
            if getattr(theirs, name) != getattr(self, name)
        ]
        if faults:
            raise ValueError(
                f"these tokenizers do not fit the model's vocabulary: {'; '.join(faults)}; "
                "load the tokenizers that the model was trained with"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for config.json: the sizes, and the tables of ids for readers of other languages."""
        families = {name: [ids.start, ids.stop] for name, ids in FAMILY_IDS.items()}
        return {
            **dataclasses.asdict(self),
            "size": self.size,
            "special_ids": dict(SPECIAL_IDS),
            "family_ids": families,
            "task_ids": dict(TASK_IDS),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Vocabulary:
        """Read ``to_json`` back and compare its tables with this version's.

        Args:
            values: the table.

        Returns:
            The vocabulary.

        Raises:
            ValueError: if the special ids differ from this version's.
        """
        vocabulary = cls(**{f.name: values[f.name] for f in dataclasses.fields(cls)})
        now = vocabulary.to_json()
        for name, table in now.items():
            if name in values and values[name] != table:
                raise ValueError(f"saved {name} differ from this version's: {values[name]} and {table}")
        return vocabulary
