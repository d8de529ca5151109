"""Tiles of a large picture."""

import pytest
import torch

from mmtok.contract import VisualTokenizer
from mmtok.metrics.tiling import tiling_error
from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.larp import PRESETS as LARPS
from mmtok.visual.larp import Larp
from mmtok.visual.magvit2 import Magvit2, magvit2
from mmtok.visual.tiling import TiledTokenizer, _cut


class Local:
    """A tokenizer without receptive field: a code is the brightness of its 4 x 4 pixels, so tiles are exact."""

    codebook_size, num_codebooks, stride, fps, is_causal = 256, 1, (1, 4, 4), 8.0, True

    def grid(self, num_frames, height, width):
        return num_frames, height // 4, width // 4

    def valid_num_frames(self, num_frames):
        return num_frames

    def encode(self, video):
        cells = video.mean(1, keepdim=True).unflatten(4, (-1, 4)).unflatten(3, (-1, 4)).mean((4, 6))
        return ((cells + 1) * 127.5).round().long()

    def decode(self, codes, *, clamp=True):
        return (codes.float() / 127.5 - 1).repeat_interleave(4, 3).repeat_interleave(4, 4).expand(-1, 3, -1, -1, -1)


def clip(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 100), (200, 68), (32, 32), (20, 132)])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (32, 16), (64, 0), (36, 12)])
def test_without_a_receptive_field_tiles_change_nothing(height, width, tile, overlap):
    tokenizer = Local()
    tiled = TiledTokenizer(tokenizer, tile=tile, overlap=overlap)
    assert isinstance(tiled, VisualTokenizer)
    video = clip(2, 3, 2, height, width)
    codes = tiled.encode(video)
    assert torch.equal(codes, tokenizer.encode(video))
    torch.testing.assert_close(tiled.decode(codes), tokenizer.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [9, 16, 17, 23, 40, 64])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 2), (8, 4), (16, 8)])
def test_tiles_cover_a_side_and_share_what_was_asked(size, tile, overlap):
    axis = _cut(size, tile, overlap)
    ends = [s + axis.length for s in axis.starts]
    assert axis.starts[0] == 0 and ends[-1] == size and axis.length == min(size, tile)
    assert all(end - start >= overlap - 1 for end, start in zip(ends, axis.starts[1:], strict=False))  # rounding
    weights = axis.weights(overlap)
    torch.testing.assert_close(weights.sum(0), torch.ones(size))
    for start, end, row in zip(axis.starts, ends, weights, strict=True):
        assert not row[:start].any() and not row[end:].any()
        assert (row[start:end] > 0).all()


MODELS = {
    "magvit2": lambda: magvit2("tiny"),
    "cosmos": lambda: CosmosDV(
        CosmosParams(stride=(4, 4, 4), patch_size=2, z_channels=4, channels=8, num_res_blocks=1, levels=(8, 8))
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_picture_that_fits_one_tile_is_exact(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    video = clip(1, 3, 5, 32, 48)
    tiled = TiledTokenizer(model, tile=48, overlap=16)
    codes = model.encode(video)
    assert torch.equal(tiled.encode(video), codes)
    assert torch.equal(tiled.decode(codes), model.decode(codes))
    error = tiling_error(model, video, tile=48, overlap=16)
    assert (error.changed_codes, error.psnr_db, error.round_trip_db) == (0.0, float("inf"), 0.0)


def test_more_overlap_comes_closer_on_the_embedded_tokenizer():
    from recipes.bundle.folder import open_bundle
    from recipes.corpora.shapes import ShapesCorpus, render_video

    model = Magvit2.from_pretrained(open_bundle("tiny").part("visual"))
    video = render_video(ShapesCorpus(0, "heldout").scene(1), size=128, num_frames=5)[None]
    errors = [tiling_error(model, video, tile=64, overlap=overlap) for overlap in (0, 32)]
    assert errors[0].psnr_db < errors[1].psnr_db and errors[1].psnr_db > 25
    assert errors[0].changed_codes > errors[1].changed_codes > 0
    assert errors[1].round_trip_db > -1.0


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [(60, 8, "multiple of 8"), (0, 0, "positive"), (64, 20, "overlap"), (64, 40, "half a tile"), (64, -8, "overlap")],
)
def test_tiles_that_do_not_fit_are_refused(tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        TiledTokenizer(magvit2("tiny"), tile=tile, overlap=overlap)


def test_wrong_clips_are_refused_as_by_the_tokenizer():
    tiled = TiledTokenizer(magvit2("tiny").eval(), tile=32, overlap=8)
    with pytest.raises(ValueError, match="must be 1 \\+ a multiple of 4"):
        tiled.encode(clip(1, 3, 4, 64, 64))
    with pytest.raises(ValueError, match="multiples of"):
        tiled.encode(clip(1, 3, 5, 60, 64))


def test_tokens_without_a_grid_are_refused():
    with torch.device("meta"):
        larp = Larp(LARPS["larp-nano"])
    with pytest.raises(ValueError, match="about the whole clip"):
        TiledTokenizer(larp, tile=32, overlap=8)
