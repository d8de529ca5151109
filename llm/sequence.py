"""The prompt layout: which id, position and block every place of a sequence has (VideoPoet figure 2 and table 4).

    <bos> <task> <bot_i> text <eot_i> <bov_i> visual <eov_i> <boa_i> audio <eoa_i> <source> <res> <duration>  | prefix
    <bov_o> visual <eov_o> <boa_o> audio <eoa_o> <eos>                                                          | output

Attention is full inside the prefix and causal in the output, the loss is on the output only, and an absent modality
drops its span together with its markers. All sequences of a batch share one layout, so a layout holds no media, only
shapes. Audio codes stand level by level, as in VideoPoet, or in another order of ``mmtok.audio.orders``.

Shape letters: b batch, n sequence, t h w grid of visual tokens, k audio levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmtok.audio.orders import filled, level_places, num_places, require_order
from mmtok.vocabulary import Block, Vocabulary

INPUT_MARKERS = {"text": ("<bot_i>", "<eot_i>"), "visual": ("<bov_i>", "<eov_i>"), "audio": ("<boa_i>", "<eoa_i>")}
OUTPUT_MARKERS = {"visual": ("<bov_o>", "<eov_o>"), "audio": ("<boa_o>", "<eoa_o>")}


@dataclass(frozen=True)
class Span:
    """Content asked for in a layout, before it has a place.

    Attributes:
        name: key of the content, such as "visual_out".
        shape: (t, h, w) for visual content, (levels, frames) for audio.
        offset: time slice (visual) or frame (audio) of the clip that the span starts with.
    """

    name: str
    shape: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Stretch:
    """Consecutive places of one kind.

    Attributes:
        kind: "special", "text", "visual" or "audio".
        name: the marker, or the key of the content.
        start: first place.
        shape: (1,) for a marker, (slots,) for text, (t, h, w) for visual, (levels, frames) for audio.
        offset: as in ``Span``.
        id: the marker's id; None for content.
        order: of the codes of audio, see ``mmtok.audio.orders``.
    """

    kind: str
    name: str
    start: int
    shape: tuple[int, ...]
    offset: int = 0
    id: int | None = None
    order: str = "level"

    @property
    def length(self) -> int:
        """Places taken."""
        if self.kind == "audio":
            levels, frames = self.shape
            return num_places(self.order, levels, frames)
        return torch.Size(self.shape).numel()

    @property
    def stop(self) -> int:
        """One past the last place."""
        return self.start + self.length

    def level(self, level: int) -> slice:
        """Places of one level of audio, from 0, in the sequence: a slice with start, stop and step."""
        levels, frames = self.shape
        inside = level_places(self.order, level, levels, frames)
        return slice(self.start + inside.start, self.start + inside.stop, inside.step)

    @property
    def filled(self) -> Tensor:
        """(length,) bool: True where content stands, False at the empty places of delayed audio, which hold <pad>."""
        if self.kind == "audio":
            levels, frames = self.shape
            return filled(self.order, levels, frames)
        return torch.ones(self.length, dtype=torch.bool)


@dataclass(frozen=True)
class Run:
    """Evenly spaced output places whose ids come from one block.

    Attributes:
        kind: "special", "visual" or "audio".
        start: first place.
        stop: one past the last place.
        block: ids allowed there.
        step: distance of the places; 1 but for audio in an order that is not level by level.
    """

    kind: str
    start: int
    stop: int
    block: Block
    step: int = 1

    @property
    def places(self) -> slice:
        """Where they stand."""
        return slice(self.start, self.stop, self.step)

    @property
    def rows(self) -> slice:
        """The places before, whose hidden vectors predict these."""
        return slice(self.start - 1, self.stop - 1, self.step)


@dataclass(frozen=True)
class Layout:
    """A sequence without its media.

    Attributes:
        vocabulary: where ids come from.
        stretches: all places in order, without gaps.
        prefix_length: places of the bidirectional half; the first output marker stands at this place.
    """

    vocabulary: Vocabulary
    stretches: tuple[Stretch, ...]
    prefix_length: int

    @cached_property
    def length(self) -> int:
        """Places in all."""
        return self.stretches[-1].stop

    @cached_property
    def text_slots(self) -> int:
        """Places reserved for text, 0 when there is no text span."""
        return sum(s.length for s in self.stretches if s.kind == "text")

    def find(self, name: str) -> Stretch | None:
        """The stretch of a content such as "visual_out", or None."""
        return next((s for s in self.stretches if s.name == name), None)

    def stretch(self, name: str) -> Stretch:
        """The stretch of that content.

        Args:
            name: such as "visual_out".

        Returns:
            The stretch.

        Raises:
            ValueError: if the layout has none, with the contents it has.
        """
        found = self.find(name)
        if found is None:
            known = ", ".join(s.name for s in self.stretches if s.kind != "special")
            raise ValueError(f"this layout has no {name!r}; it has: {known or 'markers only'}")
        return found

    @cached_property
    def template(self) -> Tensor:
        """(n,) int64 ids of the markers, and <pad> where content goes."""
        ids = torch.full((self.length,), self.vocabulary.pad_id, dtype=torch.int64)
        for stretch in self.stretches:
            if stretch.id is not None:
                ids[stretch.start] = stretch.id
        return ids

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The output half by the block of allowed ids: one audio level is one run, empty places are in none."""
        out = []
        for s in (s for s in self.stretches if s.start >= self.prefix_length):
            if s.kind == "special":
                out.append(Run("special", s.start, s.stop, self.vocabulary.special))
            elif s.kind == "visual":
                out.append(Run("visual", s.start, s.stop, self.vocabulary.visual))
            else:
                for level in range(s.shape[0]):
                    at = s.level(level)
                    out.append(Run("audio", at.start, at.stop, self.vocabulary.audio_level(level), at.step))
        return tuple(out)

    @cached_property
    def blocks(self) -> Tensor:
        """(n, 2) int64: first id and one past the last id allowed at a place; markers are a block of one id.

        So are places without content of the vocabulary: text slots and the empty places of delayed audio allow <pad>.
        """
        pad = self.vocabulary.pad_id
        out = torch.tensor([pad, pad + 1]).repeat(self.length, 1)
        for s in self.stretches:
            if s.id is not None:
                out[s.start] = torch.tensor([s.id, s.id + 1])
            elif s.kind == "visual":
                out[s.start : s.stop] = torch.tensor([self.vocabulary.visual.start, self.vocabulary.visual.stop])
            elif s.kind == "audio":
                for level in range(s.shape[0]):
                    block = self.vocabulary.audio_level(level)
                    out[s.level(level)] = torch.tensor([block.start, block.stop])
        return out

    def attention_mask(self, text_mask: Tensor | None = None) -> Tensor:
        """Who may attend to whom: the prefix to all of itself, the output to the prefix and to what came before.

        Args:
            text_mask: (b, text_slots) bool, True where a text vector is; places that are False are attended by nobody.

        Returns:
            (1, 1, n, n) bool without ``text_mask`` or (b, 1, n, n) with it; [.., i, j] is True when i may read j.
        """
        device = text_mask.device if text_mask is not None else None
        places = torch.arange(self.length, device=device)
        allowed = (places[None, :] < self.prefix_length) | (places[None, :] <= places[:, None])
        allowed = allowed[None, None]
        if text_mask is None:
            return allowed
        return allowed & self.readable(text_mask)[:, None, None, :]

    def readable(self, text_mask: Tensor) -> Tensor:
        """Places that anybody may attend to: all but the empty text slots.

        Args:
            text_mask: (b, text_slots) bool.

        Returns:
            (b, n) bool.

        Raises:
            ValueError: if the number of slots differs from the layout's.
        """
        text = self.stretch("text")
        if text_mask.shape[1] != text.length:
            raise ValueError(f"text_mask has {text_mask.shape[1]} slots, the layout {text.length}")
        out = text_mask.new_ones(text_mask.shape[0], self.length)
        out[:, text.start : text.stop] = text_mask
        return out

    def fill(self, content: dict[str, Tensor], batch_size: int) -> tuple[Tensor, Tensor]:
        """Put media codes into the sequence.

        ``visual_out`` may have fewer slices than the layout, and ``audio_out`` fewer frames, the first ones of every
        level: a generator keeps those and makes the others.

        Args:
            content: name to codes: visual (b, 1, t, h, w); audio (b, levels, frames). All input content is needed.
            batch_size: b.

        Returns:
            ids (b, n) int64, and known (n,) bool: True where the id is given (prefix, markers, filled output).

        Raises:
            ValueError: for missing input, unknown names or shapes that are not the layout's.
        """
        names = {s.name for s in self.stretches if s.kind in ("visual", "audio")}
        unknown = sorted(set(content) - names)
        inputs = {s.name for s in self.stretches if s.name in names and s.stop <= self.prefix_length}
        missing = sorted(inputs - set(content))
        if unknown or missing:
            raise ValueError(f"content does not fit the layout: unknown {unknown}, missing {missing}")
        device = next((c.device for c in content.values()), torch.device("cpu"))
        ids = self.template.to(device).repeat(batch_size, 1)
        known = torch.ones(self.length, dtype=torch.bool)
        for s in self.stretches:
            if s.name not in names:
                continue
            known[s.start : s.stop] = ~s.filled
            if s.name not in content:
                continue
            codes = content[s.name]
            most = s.shape[0] if s.kind == "visual" else s.shape[1]  # slices, or frames of each level
            part = s.name in ("visual_out", "audio_out") and codes.ndim == (5 if s.kind == "visual" else 3)
            given = min(codes.shape[2], most) if part else most
            shape = (1, given, *s.shape[1:]) if s.kind == "visual" else (s.shape[0], given)
            if tuple(codes.shape) != (batch_size, *shape):
                raise ValueError(f"{s.name} must be codes of shape {(batch_size, *shape)}, got {tuple(codes.shape)}")
            if s.kind == "visual":
                flat = self.vocabulary.visual_to_ids(codes)
                ids[:, s.start : s.start + flat.shape[1]] = flat
                known[s.start : s.start + flat.shape[1]] = True
                continue
            flat = self.vocabulary.audio_to_ids(codes)
            for level, own in enumerate(flat.chunk(s.shape[0], dim=1)):  # each level's frames, wherever they stand
                places = torch.arange(self.length)[s.level(level)][:given]
                ids[:, places.to(device)] = own
                known[places] = True
        return ids, known

    def read(self, ids: Tensor, name: str) -> Tensor:
        """Take the codes of one content back out of complete sequences.

        Args:
            ids: (b, n) ids.
            name: such as "visual_out".

        Returns:
            Visual codes (b, 1, t, h, w) or audio codes (b, levels, frames), int64.

        Raises:
            ValueError: if there is no such content, or ids of other blocks stand there.
        """
        s = self.stretch(name)
        part = ids[:, s.start : s.stop]
        if s.kind == "visual":
            return self.vocabulary.ids_to_visual(part, s.shape)
        if s.kind == "audio":
            return self.vocabulary.ids_to_audio(part, s.order)
        raise ValueError(f"{name!r} holds no media")


def build_layout(
    vocabulary: Vocabulary,
    *,
    task: str,
    text_slots: int = 0,
    visual_in: tuple[Span, ...] = (),
    audio_in: Span | None = None,
    source: int | None = None,
    resolution: int | None = None,
    duration: int | None = None,
    visual_out: Span | None = None,
    audio_out: Span | None = None,
    ends: bool = True,
    audio_order: str = "level",
) -> Layout:
    """Lay a sequence out.

    Args:
        vocabulary: where ids come from.
        task: a task value of the vocabulary, such as "generate_video".
        text_slots: places for text, 0 to drop the span.
        visual_in: visual inputs, all inside one <bov_i> .. <eov_i>.
        audio_in: audio input.
        source: index of the data source or quality tier.
        resolution: index of the output resolution; None is the square default.
        duration: index of the output duration; None is the default length.
        visual_out: visual output.
        audio_out: audio output, behind the visual one.
        ends: False leaves <eov_o> and <eos> out, as images do, so that nothing says "stop after one frame".
        audio_order: in which audio codes stand, one of ``mmtok.audio.orders.ORDERS``.

    Returns:
        The layout.

    Raises:
        ValueError: if there is no output, sound is asked for behind an open-ended picture, or the order is unknown.
    """
    require_order(audio_order)
    if visual_out is None and audio_out is None:
        raise ValueError("a layout needs visual_out or audio_out")
    if not ends and audio_out is not None:
        raise ValueError("a layout without end markers cannot hold audio_out behind visual_out")
    stretches: list[Stretch] = []

    def put(kind: str, name: str, shape: tuple[int, ...], offset: int = 0, id: int | None = None) -> None:
        stretches.append(Stretch(kind, name, stretches[-1].stop if stretches else 0, shape, offset, id, audio_order))

    def marker(name: str) -> None:
        put("special", name, (1,), id=vocabulary.special_id(name))

    marker("<bos>")
    put("special", "<task>", (1,), id=vocabulary.task_id(task))
    inputs = {
        "text": [Span("text", (text_slots,))] if text_slots else [],
        "visual": list(visual_in),
        "audio": [audio_in] if audio_in else [],
    }
    for kind, spans in inputs.items():
        if spans:
            marker(INPUT_MARKERS[kind][0])
            for span in spans:
                put(kind, span.name, span.shape, span.offset)
            marker(INPUT_MARKERS[kind][1])
    for family, index in (("source", source), ("resolution", resolution), ("duration", duration)):
        if index is not None:
            put("special", f"<{family}>", (1,), id=vocabulary.family_id(family, index))
    prefix_length = stretches[-1].stop
    for kind, out in (("visual", visual_out), ("audio", audio_out)):
        if out is not None:
            marker(OUTPUT_MARKERS[kind][0])
            put(kind, out.name, out.shape, out.offset)
            if ends:
                marker(OUTPUT_MARKERS[kind][1])
    if ends:
        marker("<eos>")
    return Layout(vocabulary, tuple(stretches), prefix_length)
