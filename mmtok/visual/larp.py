"""LARP: video as a sequence of holistic tokens that queries gather from the whole clip.

Wang et al. 2024, "LARP: Tokenizing Videos with a Learned Autoregressive Generative Prior", arXiv 2410.21264. Patches
and learned queries pass one transformer, the queries' outputs are quantised (nearest by angle), and a second
transformer turns them, beside fixed patch queries, back into patches.

Unusual here: there is no grid, a code is about the whole clip, so codes do not tell its size (``needs_size``) and
nothing is causal in time; any number of the first queries can be used; codes are drawn by their angles in training; a
small causal prior trains with it, so that the codes are easy to predict in their order, and is thrown away
(larp_prior.py).

Shape letters: b batch, t h w time/height/width, n tokens, p patches, d width, c latent width, k codebook entries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmtok.contract import check_codes, require_video
from mmtok.find import find
from mmtok.nn.transformer import Transformer, sine_table, sine_table_3d
from mmtok.pretrained import PretrainedModule
from mmtok.visual.larp_prior import LarpPrior, LarpPriorParams, PriorOutput


@dataclass(frozen=True)
class LarpParams:
    """Sizes and options of a LARP tokenizer; the defaults are the published LARP-L-long without its prior.

    Attributes:
        num_tokens: holistic queries.
        size: height and width of the training clips, pixels.
        num_frames: their length.
        patch_size: side of a patch, pixels.
        temporal_patch_size: frames of a patch.
        encoder_dim: width of the encoder.
        encoder_heads: its heads.
        encoder_depth: its blocks.
        decoder_dim: width of the decoder.
        decoder_heads: its heads.
        decoder_depth: its blocks.
        code_dim: width of a latent.
        codebook_size: codes.
        normalized: latents and codebook have unit length where they meet.
        temperature: of the stochastic choice of codes in training (cosines over it); None takes the nearest code.
        code_norm: LayerNorm on latents.
        commitment_weight: of the latents' distance to their codes.
        codebook_weight: of the codes' distance to their latents.
        table_scale: longest wavelength of the tokens' sine table over 2 pi.
        learned_queries: the queries are trained, otherwise a sine table.
        learned_patch_table: the encoder's patch table is trained, as a sum over the axes.
        learned_token_table: the decoder's token table is trained.
        learned_patch_queries: the decoder's patch queries are trained, as a sum over the axes.
        patch_type: a trained vector is added to the encoder's patches.
        query_type: to its queries.
        token_type: to the decoder's tokens.
        patch_query_type: to its patch queries.
        adaptive_tokens: training uses random numbers of tokens, the first ones, down to this many; None always all.
        fps: pictures per second of the training clips.
        prior: sizes of the prior, or None for none.
    """

    num_tokens: int = 1024
    size: int = 128
    num_frames: int = 16
    patch_size: int = 8
    temporal_patch_size: int = 4
    encoder_dim: int = 768
    encoder_heads: int = 12
    encoder_depth: int = 12
    decoder_dim: int = 768
    decoder_heads: int = 12
    decoder_depth: int = 12
    code_dim: int = 16
    codebook_size: int = 8192
    normalized: bool = True
    temperature: float | None = 0.03
    code_norm: bool = False
    commitment_weight: float = 0.25
    codebook_weight: float = 1.0
    table_scale: float = 10000.0
    learned_queries: bool = True
    learned_patch_table: bool = False
    learned_token_table: bool = False
    learned_patch_queries: bool = False
    patch_type: bool = False
    query_type: bool = False
    token_type: bool = False
    patch_query_type: bool = True
    adaptive_tokens: int | None = None
    fps: float = 25.0
    prior: LarpPriorParams | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prior, dict):  # from config.json
            object.__setattr__(self, "prior", LarpPriorParams(**self.prior))
        for name in ("num_tokens", "codebook_size", "code_dim", "size", "num_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.size % self.patch_size or self.num_frames % self.temporal_patch_size:
            raise ValueError(
                f"clips of {self.num_frames} x {self.size} x {self.size} do not divide into patches of "
                f"{self.temporal_patch_size} x {self.patch_size} x {self.patch_size}"
            )
        if self.temperature is not None and (self.temperature <= 0 or not self.normalized):
            raise ValueError("a stochastic choice needs a positive temperature and normalized latents")
        if self.adaptive_tokens is not None and not 2 <= self.adaptive_tokens <= self.num_tokens:
            raise ValueError(f"adaptive_tokens ({self.adaptive_tokens}) must lie in [2, {self.num_tokens}]")
        if self.prior is not None and self.prior.max_tokens < self.num_tokens:
            raise ValueError(f"the prior takes {self.prior.max_tokens} tokens, the tokenizer makes {self.num_tokens}")

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches of a training clip, ordered time, height, width."""
        side = self.size // self.patch_size
        return self.num_frames // self.temporal_patch_size, side, side


class PatchTable(nn.Module):
    """A vector for every patch, cut or interpolated for other clips than those of training.

    Args:
        grid: patches of a training clip, (t, h, w).
        dim: width.
        learned: a trained sum over the three axes instead of fixed sines.
    """

    table: Tensor

    def __init__(self, grid: tuple[int, int, int], dim: int, *, learned: bool):
        super().__init__()
        self.grid, self.learned = grid, learned
        if not learned:
            self.register_buffer("table", sine_table_3d(grid, dim)[None])
            return
        tables = []
        for axis, length in enumerate(grid):
            shape = [1, 1, 1, 1, dim]
            shape[1 + axis] = length
            tables.append(sine_table(torch.arange(length), dim).view(shape))
        self.over_t, self.over_h, self.over_w = (nn.Parameter(table) for table in tables)

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        """The table of a clip.

        Args:
            grid: its patches; shorter in time is cut (the published behaviour), anything else interpolated linearly.

        Returns:
            (1, p, d), time outermost.
        """
        if not self.learned:
            table = self.table.view(1, *self.grid, -1)
        else:
            table = self.over_t + self.over_h + self.over_w
        if grid[1:] == self.grid[1:] and grid[0] <= self.grid[0]:
            table = table[:, : grid[0]]
        else:
            table = F.interpolate(table.permute(0, 4, 1, 2, 3), size=grid, mode="trilinear").permute(0, 2, 3, 4, 1)
        return table.flatten(1, 3)


@dataclass(frozen=True)
class LarpOutput:
    """What training needs of one pass.

    Attributes:
        reconstruction: (b, 3, t, h, w) in the contract's [-1, 1], not clamped.
        codes: (b, 1, n) int64.
        latents: (b, n, c) as they are quantised.
        quantization_loss: commitment and codebook terms with their weights, scalar.
        commitment: mean squared distance of latents to their codes.
        codebook: the same number, with its gradient on the codebook.
        prior: the prior's terms, or None.
    """

    reconstruction: Tensor
    codes: Tensor
    latents: Tensor
    quantization_loss: Tensor
    commitment: Tensor
    codebook: Tensor
    prior: PriorOutput | None


class Larp(PretrainedModule):
    """The tokenizer: see the module's docstring and ``mmtok.contract.VisualTokenizer``.

    Args:
        params: sizes and options.
    """

    family = "larp"
    params_class = LarpParams
    num_codebooks = 1
    is_causal = False
    needs_size = True  # codes do not tell the clip's
    queries: Tensor
    token_table: Tensor
    patch_type: nn.Parameter | None
    query_type: nn.Parameter | None
    token_type: nn.Parameter | None
    patch_query_type: nn.Parameter | None

    def __init__(self, params: LarpParams):
        super().__init__()
        self.params = params
        self.codebook_size, self.fps = params.codebook_size, params.fps
        pt, p = params.temporal_patch_size, params.patch_size
        self.clip_size = (params.num_frames, params.size, params.size)
        self.stride = (pt, p, p)
        wide, narrow = params.encoder_dim, params.decoder_dim
        self.patch_embed = nn.Conv3d(3, wide, self.stride, stride=self.stride)
        self.encoder = Transformer(wide, params.encoder_heads, params.encoder_depth)
        self.decoder = Transformer(narrow, params.decoder_heads, params.decoder_depth)
        self.patch_table = PatchTable(params.patches, wide, learned=params.learned_patch_table)
        self.patch_queries = PatchTable(params.patches, narrow, learned=params.learned_patch_queries)
        places = torch.arange(params.num_tokens)
        self._table("queries", sine_table(places, wide, scale=params.table_scale), learned=params.learned_queries)
        tokens = sine_table(places, narrow, scale=params.table_scale)
        self._table("token_table", tokens[None], learned=params.learned_token_table)
        types = {"patch_type": wide, "query_type": wide, "token_type": narrow, "patch_query_type": narrow}
        for name, dim in types.items():  # whether each is there, the parameter of its name says
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, dim)) if getattr(params, name) else None)
        self.to_code, self.from_code = nn.Linear(wide, params.code_dim), nn.Linear(params.code_dim, narrow)
        self.code_norm = nn.LayerNorm(params.code_dim) if params.code_norm else nn.Identity()
        self.codebook = nn.Parameter(torch.empty(params.codebook_size, params.code_dim))
        self.norm_out, self.to_pixels = nn.LayerNorm(narrow, eps=1e-6), nn.Linear(narrow, 3 * pt * p * p)
        self.prior = None if params.prior is None else LarpPrior(params.prior, params.code_dim)
        self._initialise()

    def _table(self, name: str, table: Tensor, *, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(torch.randn_like(table) * 0.02))
        else:
            self.register_buffer(name, table)

    def _initialise(self) -> None:
        """Xavier for every linear map, patches included; the last one starts at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed.weight.flatten(1))
        for constant in (self.patch_embed.bias, self.to_pixels.weight, self.to_pixels.bias):
            nn.init.zeros_(constant)  # type: ignore[arg-type]
        nn.init.kaiming_uniform_(self.codebook)
        for vector in (self.patch_type, self.query_type, self.token_type, self.patch_query_type):
            if vector is not None:
                nn.init.normal_(vector, std=0.02)
        if self.prior is not None:
            nn.init.normal_(self.prior.pos_emb, std=0.02)

    # Sizes

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Tokens of a clip: always all queries.

        Args:
            num_frames: a multiple of the temporal patch.
            height: pixels, a multiple of the patch.
            width: pixels, a multiple of the patch.

        Returns:
            (n,)

        Raises:
            ValueError: for other sizes.
        """
        self._patches_of(num_frames, height, width)
        return (self.params.num_tokens,)

    def _patches_of(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        st, sh, sw = self.stride
        if num_frames < st or num_frames % st:
            below = num_frames // st * st
            ways = " or ".join(str(n) for n in (below, below + st) if n)
            raise ValueError(f"num_frames ({num_frames}) must be a positive multiple of {st}: use {ways}")
        if height < sh or width < sw or height % sh or width % sw:
            raise ValueError(f"height ({height}) and width ({width}) must be positive multiples of {sh}")
        return num_frames // st, height // sh, width // sw

    def valid_num_frames(self, num_frames: int) -> int:
        """Largest clip length that fits.

        Args:
            num_frames: frames at hand.

        Returns:
            A multiple of the temporal patch, at most ``num_frames``.

        Raises:
            ValueError: if there are fewer frames than a patch has.
        """
        if num_frames < self.stride[0]:
            raise ValueError(f"num_frames ({num_frames}) must be at least {self.stride[0]}, the frames of a patch")
        return num_frames // self.stride[0] * self.stride[0]

    def _count(self, num_tokens: int | None) -> int:
        most = self.params.num_tokens
        if num_tokens is None:
            return most
        if not 1 <= num_tokens <= most:
            raise ValueError(f"num_tokens ({num_tokens}) must lie in [1, {most}]")
        return num_tokens

    # The two halves

    def encode_queries(self, video: Tensor, num_tokens: int | None = None) -> Tensor:
        """The queries' outputs before the bottleneck."""
        n = self._count(num_tokens)
        grid = self._patches_of(*video.shape[2:])
        patches = self.patch_embed(((video + 1) / 2).to(self.patch_embed.weight.dtype))
        patches = rearrange(patches, "b d t h w -> b (t h w) d") + self.patch_table(grid)
        queries = self.queries[:n].expand(len(video), -1, -1)
        if self.patch_type is not None:
            patches = patches + self.patch_type
        if self.query_type is not None:
            queries = queries + self.query_type
        return self.encoder(torch.cat((patches, queries), 1), keep=n)  # type: ignore[no-any-return]

    def to_latents(self, outputs: Tensor) -> Tensor:
        """Latents as they meet the codebook."""
        z = self.code_norm(self.to_code(outputs)).float()
        return F.normalize(z, dim=-1) if self.params.normalized else z

    def code_vectors(self) -> Tensor:
        """The codebook as it is used: (k, c) float32."""
        codebook = self.codebook.float()
        return F.normalize(codebook, dim=-1) if self.params.normalized else codebook

    def choose(
        self, latents: Tensor, *, temperature: float | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes of latents.

        Args:
            latents: (b, n, c).
            temperature: None for the nearest code; otherwise codes are drawn from the softmax of cosines over it.
            generator: of the draw, on the CPU.

        Returns:
            (b, n) int64.

        Raises:
            ValueError: if codes shall be drawn though nothing is normalised.
        """
        codebook = self.code_vectors()
        with torch.autocast(latents.device.type, enabled=False):
            if temperature is None:
                if self.params.normalized:
                    return (latents @ codebook.T).argmax(-1)
                return (codebook.square().sum(1) - 2 * latents @ codebook.T).argmin(-1)
            if not self.params.normalized:
                raise ValueError("codes are drawn by angle; this tokenizer does not normalise")
            if not temperature > 0:
                raise ValueError(f"temperature must be positive, got {temperature}; None takes the nearest code")
            p = (latents.detach() @ codebook.T / temperature).softmax(-1).flatten(0, 1)
        p = p.cpu() if generator is not None else p
        return torch.multinomial(p, 1, generator=generator).view(latents.shape[:2]).to(latents.device)

    def decode_latents(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        """Pixels from quantised latents, with gradients.

        Args:
            latents: (b, n, c).
            size: (t, h, w) of the clip; None for that of training.

        Returns:
            (b, 3, t, h, w) in the contract's [-1, 1], not clamped.
        """
        t, h, w = self._patches_of(*(size or self.clip_size))
        tokens = self.from_code(latents.to(self.from_code.weight.dtype)) + self.token_table[:, : latents.shape[1]]
        asks = self.patch_queries((t, h, w))
        if self.token_type is not None:
            tokens = tokens + self.token_type
        if self.patch_query_type is not None:
            asks = asks + self.patch_query_type
        asks = asks.expand(len(latents), -1, -1)
        x = self.to_pixels(self.norm_out(self.decoder(torch.cat((tokens, asks), 1), keep=asks.shape[1])))
        pt, p, _ = self.stride  # the channel is innermost in a patch
        sizes = {"t": t, "h": h, "pt": pt, "ph": p, "pw": p}
        x = rearrange(x, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", **sizes)
        return x.float() * 2 - 1

    # The contract

    @torch.inference_mode()
    def encode(
        self,
        video: Tensor,
        *,
        num_tokens: int | None = None,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Codes of a clip; the nearest ones unless sampling is asked for.

        Args:
            video: (b, 3, t, h, w) in [-1, 1]; other lengths and sizes than those of training interpolate tables.
            num_tokens: how many tokens, the first queries; None for all.
            temperature: draw codes instead, 0.03 in the published training.
            generator: of the draw, on the CPU.

        Returns:
            (b, 1, n) int64.

        Raises:
            ValueError: if the tensor is not such a clip or does not divide into patches.
        """
        require_video(video)
        self.grid(*video.shape[2:])
        latents = self.to_latents(self.encode_queries(video, num_tokens))
        return self.choose(latents, temperature=temperature, generator=generator)[:, None]

    @torch.inference_mode()
    def decode(self, codes: Tensor, *, clamp: bool = True, size: tuple[int, int, int] | None = None) -> Tensor:
        """Clip from codes.

        Args:
            codes: (b, 1, n) integers below ``codebook_size``, n at most the number of queries.
            clamp: bring the result into [-1, 1].
            size: (t, h, w) of the clip, which the codes do not tell; None for that of training.

        Returns:
            (b, 3, t, h, w) float32.

        Raises:
            ValueError: for another shape or a code out of range.
        """
        check_codes(codes, num_codebooks=1, codebook_size=self.codebook_size, axes="n")
        self._count(codes.shape[2])
        video = self.decode_latents(self.code_vectors()[codes[:, 0]], size)
        return video.clamp(-1, 1) if clamp else video

    def draw_num_tokens(self, generator: torch.Generator | None = None) -> int:
        """How many tokens a step of an adaptive training uses.

        Args:
            generator: of the draw, on the CPU.

        Returns:
            From ``adaptive_tokens`` to ``num_tokens``; always the latter where the training is not adaptive.
        """
        fewest, most = self.params.adaptive_tokens, self.params.num_tokens
        return most if fewest is None else int(torch.randint(fewest, most + 1, (1,), generator=generator))

    def forward(
        self,
        video: Tensor,
        *,
        num_tokens: int | None = None,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> LarpOutput:
        """One pass for training: stochastic codes in train mode, nearest ones in eval mode.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].
            num_tokens: only the first so many queries.
            progress: of the training, 0 to 1, for the prior's scheduled sampling.
            generator: of every draw, on the CPU.

        Returns:
            Reconstruction, codes and loss terms.

        Raises:
            ValueError: if the clip does not divide into patches.
        """
        params = self.params
        latents = self.to_latents(self.encode_queries(video, num_tokens))
        ids = self.choose(latents, temperature=params.temperature if self.training else None, generator=generator)
        codebook = self.code_vectors()
        quantised = codebook[ids]
        commitment = F.mse_loss(latents, quantised.detach())
        pull = F.mse_loss(quantised, latents.detach())
        straight = latents + (quantised - latents).detach()
        prior = None
        if self.prior is not None:
            prior = self.prior.loss(straight, ids, codebook, progress=progress, generator=generator)
        return LarpOutput(
            reconstruction=self.decode_latents(straight, (video.shape[2], video.shape[3], video.shape[4])),
            codes=ids[:, None],
            latents=latents,
            quantization_loss=params.commitment_weight * commitment + params.codebook_weight * pull,
            commitment=commitment,
            codebook=pull,
            prior=prior,
        )

    def without_prior(self) -> Larp:
        """This model as it is used once it is trained, its prior dropped."""
        self.params, self.prior = replace(self.params, prior=None), None
        return self


PRIORS: dict[str, LarpPriorParams] = {
    "gptc-S": LarpPriorParams(),
    "gptc-L": LarpPriorParams(num_layers=24, num_heads=16, dim=1024),
    "gptc-B": LarpPriorParams(num_layers=12, num_heads=12, dim=768),
    "gptc-M": LarpPriorParams(num_layers=12, num_heads=8, dim=512),
    "gptc-XS": LarpPriorParams(num_layers=6, num_heads=6, dim=384),
    "gptc-XXS": LarpPriorParams(num_layers=6, num_heads=4, dim=256),
}
PRESETS: dict[str, LarpParams] = {
    "larp-l-long": LarpParams(prior=PRIORS["gptc-S"]),
    # a study's: 16 frames of 32 pixels as 64 tokens of 1,024 codes
    "larp-nano": LarpParams(
        num_tokens=64,
        size=32,
        encoder_dim=192,
        encoder_heads=3,
        encoder_depth=4,
        decoder_dim=192,
        decoder_heads=3,
        decoder_depth=4,
        codebook_size=1024,
        fps=8.0,
        prior=LarpPriorParams(num_layers=3, num_heads=2, dim=128, max_tokens=64, dropout=0.0),
    ),
}
# a laptop's: 16 frames of 64 pixels as 128 tokens
PRESETS["larp-tiny"] = replace(
    PRESETS["larp-nano"],
    num_tokens=128,
    size=64,
    prior=LarpPriorParams(num_layers=3, num_heads=2, dim=128, max_tokens=128, dropout=0.0),
)


def find_larp(preset: str) -> LarpParams:
    """The sizes of a preset of ``PRESETS``; ValueError for an unknown name."""
    return find(PRESETS, preset, "LARP preset")


def larp(preset: str) -> Larp:
    """A new model of a preset's size, with random weights; ValueError for an unknown name."""
    return Larp(find_larp(preset))
