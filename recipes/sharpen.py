"""Super-resolution of a bundle: of codes, of a clip, and of a film of any length.

Shape letters: b films, t h w time/height/width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm.sampling import Generators
from mmtok.pretrained import read_config
from mmtok.visual.grid import pad_frames, repeat_last_frame
from mmtok.visual.holistic import is_holistic
from recipes.parts import Parts, Text, each_row
from recipes.request import OnStep, film_generators


class Sharpener(Parts):
    """Parts that also sharpen."""

    def encode_sharp(self, video: Tensor) -> Tensor:
        """Codes of super-resolution's tokenizer; a length that it does not take is filled with the last picture.

        Args:
            video: (b, 3, t, h, w) in [-1, 1], small or large.

        Returns:
            (b, 1, t', h', w') codes.
        """
        tokenizer = self.sharp_visual
        video = video.to(self.compute.device)
        return tokenizer.encode(video if is_holistic(tokenizer) else pad_frames(video, tokenizer.stride[0]))  # type: ignore[no-any-return]

    def decode_sharp(self, codes: Tensor) -> Tensor:
        """Pictures of ``encode_sharp``'s codes, or of super-resolution's.

        Args:
            codes: (b, 1, t', h', w').

        Returns:
            (b, 3, t, h, w), no longer than a clip.
        """
        return self.sharp_visual.decode(codes)[:, :, : self.config.num_frames]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def sharpen(
        self,
        low: Tensor,
        *,
        prompts: list[str] | None,
        generator: torch.Generator | None = None,
        notes: list[str] | None = None,
    ) -> Tensor:
        """Super-resolution of codes.

        Args:
            low: (b, 1, t, h, w) codes of the language model's resolution.
            prompts: b texts, or None.
            generator: CPU generator, of which every film takes its own.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            (b, 1, t, 2h, 2w) codes of ``sharp_visual``, for ``decode_sharp``.
        """
        low = low.to(self.compute.device)
        if self.sharp_visual is not self.visual:  # the pictures again, in tokens that super-resolution knows
            low = self.encode_sharp(self.visual.decode(low))
        text = self.embed(prompts, [] if notes is None else notes)
        return self.upsample(low, text, film_generators(generator, len(low), 1))

    @torch.inference_mode()
    def upscale(
        self,
        video: Tensor,
        *,
        prompt: str | None = None,
        generator: torch.Generator | None = None,
        notes: list[str] | None = None,
    ) -> Tensor:
        """Sharpen any video, clip by clip; each clip after the first starts with the last second before it.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            prompt: what is seen, or None.
            generator: CPU generator, of which every film takes its own.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            (b, 3, t, s, s) in [-1, 1] with s = ``config.upscaled_size``.
        """
        self.seconds = {}
        text = self.embed([prompt], [] if notes is None else notes) if prompt else None
        small = self.fit(video).to(self.compute.device)
        return self.sharpen_frames(small, text, film_generators(generator, len(small), 1)).float().cpu()

    def sharpen_clip(
        self,
        codes: dict[str, Tensor],
        frames: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sharp pictures of a clip that the language model made.

        Args:
            codes: "low" (b, 1, t, h, w); receives "high" (b, 1, t, 2h, 2w), but for a clip longer than
                super-resolution's, which goes in windows.
            frames: (b, 3, t, h, w) the pictures of the codes.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.

        Returns:
            (b, 3, t, 2h, 2w) in [-1, 1].
        """
        low = codes["low"]
        if not is_holistic(self.visual) and low.shape[2] > self.superres.config.grid[0]:
            return self.sharpen_frames(frames, text, generator, on_step)
        if self.sharp_visual is not self.visual:
            with self._timed("re-encode picture"):
                low = self.encode_sharp(frames)
        codes["high"] = self.upsample(low, text, generator, on_step)
        with self._timed("decode sharp picture"):
            return self.decode_sharp(codes["high"])

    def sharpen_frames(
        self, frames: Tensor, text: Text | None, generator: Generators, on_step: OnStep | None = None
    ) -> Tensor:
        """Sharp pictures of any number, clip by clip, each with the last second before it pinned.

        Args:
            frames: (b, 3, t, h, w) in [-1, 1].
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.

        Returns:
            (b, 3, t, 2h, 2w) in [-1, 1].
        """
        tokenizer = self.sharp_visual
        stride, total = tokenizer.stride[0], frames.shape[2]
        clip = 1 + -(-(self.config.num_frames - 1) // stride) * stride
        out: Tensor | None = None
        while out is None or out.shape[2] < total:
            overlap = 0 if out is None else 1 + stride * ((clip - 1) // stride // 2)
            start = 0 if out is None else out.shape[2] - overlap
            window = frames[:, :, start : start + clip]
            low = tokenizer.encode(repeat_last_frame(window, clip))
            pinned = None if out is None else tokenizer.encode(out[:, :, -overlap:])
            sharp = tokenizer.decode(self.upsample(low, text, generator, on_step, pinned=pinned))
            out = sharp if out is None else torch.cat([out, sharp[:, :, overlap:]], 2)
        return out[:, :, :total]

    def upsample(
        self,
        low: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
        *,
        pinned: Tensor | None = None,
    ) -> Tensor:
        """Codes at twice the size.

        Args:
            low: (b, 1, t, h, w) codes of ``sharp_visual``.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.
            pinned: (b, 1, t', 2h, 2w) leading slices that are already sharp, or None.

        Returns:
            (b, 1, t, 2h, 2w) codes of ``sharp_visual``.
        """
        from superres.sample import sample

        known = known_mask = None
        if pinned is not None:
            b, _, t, h, w = low.shape
            known = torch.zeros(b, t, 2 * h, 2 * w, dtype=torch.int64, device=low.device)
            known_mask = torch.zeros_like(known, dtype=torch.bool)
            known[:, : pinned.shape[2]] = pinned[:, 0]
            known_mask[:, : pinned.shape[2]] = True
        model = self.superres
        vectors, mask = (each_row(x, len(low)) for x in text) if text is not None else (None, None)
        if on_step is not None:
            on_step("super-resolution", 0, 1)
        with self._timed("super-resolution"), self.compute.autocast():
            high = sample(
                model,
                low[:, 0],
                vectors,
                mask,
                num_steps=self.config.sr_steps,
                text_scale=self.config.sr_text_scale,
                low_scale=self.config.sr_low_scale,
                choice_temperature=self.config.sr_temperature,
                pinned=known,
                pinned_mask=known_mask,
                generator=generator,
            )
        if on_step is not None:
            on_step("super-resolution", 1, 1)
        return high[:, None]

    def require_sharp(self, size: tuple[int, int]) -> None:
        """Raise where super-resolution does not take pictures of a form; its weights are not loaded for that.

        Args:
            size: (h, w) pixels wanted.

        Raises:
            ValueError: if there is none, its grid is smaller, or its windows do not tile that one.
        """
        from superres.model import FAMILY
        from superres.windows import fit_window

        if not self.bundle.has("superres"):
            raise ValueError(f"the model {self.bundle.folder} has no super-resolution part; ask for no upscaling")
        if size[0] == size[1]:
            return
        params = read_config(self.bundle.part("superres"), FAMILY)["params"]
        grid = self.sharp_visual.grid(1, *size)
        fits = all(side <= most for side, most in zip(grid[1:], params["grid"][1:], strict=True))
        try:
            for window in params["windows"]:
                fit_window(tuple(window), grid)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"super-resolution of this model does not take pictures of {size[1]}x{size[0]}; "
                "leave it out (upscale=False, --no-upscale)"
            )
