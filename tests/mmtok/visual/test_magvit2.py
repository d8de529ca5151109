"""The MAGVIT-v2 tokenizer: contract, causality, size, inflation, published names."""

import dataclasses
import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mmtok.contract import VisualTokenizer
from mmtok.visual.magvit2 import (
    PRESETS,
    Magvit2,
    Magvit2Params,
    deepen_decoder,
    finish_images,
    image_params,
    inflate,
    magvit2,
)

PAPER_LIKE = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2, 2, 4),
    num_res_blocks=1,
    num_mid_blocks=1,
    spatial_downsample=(True, True, True),
    temporal_downsample=(False, True, True),
    bits=6,
    norm_groups=4,
)


PATCHED = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    num_mid_blocks=1,
    spatial_downsample=(True,),
    temporal_downsample=(False,),
    bits=6,
    patch_size=(4, 4, 4),
    norm_groups=4,
    normalize_latents=True,
)


def scrambled(params: Magvit2Params, seed: int = 0) -> Magvit2:
    """A model whose every weight matters: new ones have zeros in their kernels' past slices."""
    torch.manual_seed(seed)
    model = Magvit2(params).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.2))
    return model


def clip(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def upstream_name(name: str) -> str:
    """Our parameter name in Open-MAGVIT2's checkpoint."""
    name = re.sub(r"\.levels\.(\d+)\.(\d+)", r".LEVEL.\1.block.\2", name)
    name = name.replace("encoder.LEVEL", "encoder.down").replace("decoder.LEVEL", "decoder.up")
    name = re.sub(r"encoder\.downs\.(\d+)", r"encoder.down.\1.downsample", name)
    name = re.sub(r"decoder\.ups\.(\d+)\.conv", lambda m: f"decoder.up.{int(m[1]) + 1}.upsample.conv1", name)
    name = re.sub(r"decoder\.norms\.(\d+)", r"decoder.adaptive.\1", name)
    name = name.replace(".mid.", ".mid_block.").replace(".shortcut.", ".nin_shortcut.")
    if not re.search(r"norm|adaptive", name):
        name = re.sub(r"\.(weight|bias)$", r".conv_1.\1", name)
    return re.sub(r"(norm1|norm2|norm_out)\.conv_1", r"\1", name)


def test_base_preset_is_the_published_network():
    with torch.device("meta"):
        model = magvit2("magvit2-base")
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder))
    assert (encoder, decoder) == (144_865_298, 225_682_051)
    assert encoder + decoder == sum(p.numel() for p in model.parameters()) == 370_547_349
    assert model.codebook_size == 2**18
    assert model.stride == (4, 8, 8)
    assert model.grid(17, 128, 128) == (5, 16, 16)


def test_base_preset_has_the_names_and_shapes_of_open_magvit2(shared):
    listing = json.loads((shared / "golden/magvit/keys/open_magvit2_video_128_262144.json").read_text())["keys"]
    with torch.device("meta"):
        model = magvit2("magvit2-base")
    ours = {upstream_name(name): list(p.shape) for name, p in model.named_parameters()}
    assert ours == {name: shape for name, (_, shape) in listing.items()}


@pytest.mark.parametrize("case", ["a", "b"])
def test_upstream_runs_are_reproduced(shared, case):
    file = shared / "golden" / "magvit" / f"open_magvit2_video_{case}.safetensors"
    golden = load_file(file)
    with safe_open(file, "pt") as opened:
        config = json.loads(opened.metadata()["config"])["ddconfig"]
    multipliers = tuple(config["ch_mult"])
    params = Magvit2Params(
        channels=config["ch"],
        channel_multipliers=multipliers,
        num_res_blocks=config["num_res_blocks"],
        num_mid_blocks=config["num_res_blocks"],
        spatial_downsample=(True,) * (len(multipliers) - 1),
        temporal_downsample=tuple(m != 1 for m in multipliers[:-1]),
        bits=config["z_channels"],
        norm_scope="clip",
        stem_channels=config["ch"],
        dropped_frame=1,
    )
    model = Magvit2(params).eval()
    weights = {name: golden[f"state_dict.{upstream_name(name)}"].float() for name in model.state_dict()}
    model.load_state_dict(weights)
    assert not model.is_causal
    for kind in ("video", "image"):
        latents = model.encode_latents(golden[f"input.{kind}"])
        torch.testing.assert_close(latents, golden[f"output.{kind}.latent"], rtol=0, atol=1e-4)
        codes = model.encode(golden[f"input.{kind}"])
        assert torch.equal(codes[:, 0], golden[f"output.{kind}.indices"])
        again = model.decode_signs(golden[f"output.{kind}.quantized"])
        torch.testing.assert_close(again, golden[f"output.{kind}.recon"], rtol=0, atol=2e-4)


def test_tiny_preset_is_small_enough_to_ship():
    with torch.device("meta"):
        model = magvit2("tiny")
    assert sum(p.numel() for p in model.parameters()) < 3_000_000
    assert model.codebook_size == 4096
    assert model.grid(17, 64, 64) == (5, 8, 8)
    assert model.stride == (4, 8, 8)


@pytest.mark.parametrize("params", [PAPER_LIKE, PATCHED], ids=["paper", "patched"])
@pytest.mark.parametrize("size", [(1, 8, 8), (5, 16, 24), (9, 8, 40)])
def test_encode_and_decode_keep_the_contract(params, size):
    model = scrambled(params)
    assert isinstance(model, VisualTokenizer)
    video = clip(2, 3, *size)
    codes = model.encode(video)
    assert codes.dtype == torch.int64
    assert codes.shape == (2, 1, *model.grid(*size))
    again = model.decode(codes)
    assert again.shape == video.shape
    assert again.dtype == torch.float32
    assert float(again.abs().max()) <= 1.0
    assert torch.equal(model.encode(video[1:]), codes[1:])


@pytest.mark.parametrize("params", [PAPER_LIKE, PATCHED], ids=["paper", "patched"])
def test_latents_and_frames_do_not_feel_the_future(params):
    model = scrambled(params)
    video = clip(1, 3, 9, 16, 16).requires_grad_()
    latents = model.encode_latents(video)
    for i in range(3):
        (grad,) = torch.autograd.grad(latents[:, :, i].square().sum(), video, retain_graph=True)
        felt = grad.abs().amax(dim=(0, 1, 3, 4)) > 0
        assert bool(felt[: 4 * i + 1].any()), f"slice {i} must see its frames"
        assert not bool(felt[4 * i + 1 :].any()), f"slice {i} sees a later frame"
    signs = torch.randn(1, params.bits, 3, 2, 2).sign().requires_grad_()
    frames = model.decode_signs(signs)
    for i in range(9):
        (grad,) = torch.autograd.grad(frames[:, :, i].square().sum(), signs, retain_graph=True)
        felt = (grad.abs().amax(dim=(0, 1, 3, 4)) > 0).tolist()
        last = (i + 3) // 4
        assert felt == [j <= last for j in range(3)], f"frame {i} must feel the slices up to {last}, felt {felt}"


@pytest.mark.parametrize("params", [PAPER_LIKE, PATCHED], ids=["paper", "patched"])
def test_an_image_is_the_first_slice_of_its_clip(params):
    model = scrambled(params)
    video = clip(2, 3, 9, 16, 24)
    codes = model.encode(video)
    assert torch.equal(model.encode(video[:, :, :1]), codes[:, :, :1])
    assert torch.equal(model.encode(video[:, :, :5]), codes[:, :, :2])
    whole = model.decode(codes)
    torch.testing.assert_close(model.decode(codes[:, :, :1]), whole[:, :, :1], rtol=0, atol=1e-4)
    torch.testing.assert_close(model.decode(codes[:, :, :2]), whole[:, :, :5], rtol=0, atol=1e-4)


@pytest.mark.parametrize("params", [PAPER_LIKE, PATCHED], ids=["paper", "patched"])
def test_inflated_image_model_equals_it_on_one_frame(params):
    image_model = scrambled(image_params(params))
    video_model = inflate(image_model, params)
    image = clip(2, 3, 1, 16, 16)
    with torch.no_grad():
        latents = image_model.encode_latents(image)
        torch.testing.assert_close(video_model.encode_latents(image), latents, rtol=0, atol=1e-4)
        signs = latents.sign()
        expected = image_model.decode_signs(signs)
        torch.testing.assert_close(video_model.decode_signs(signs), expected, rtol=0, atol=1e-3)
    assert video_model.grid(9, 16, 16) == (3, 2, 2)


def test_inflating_to_other_sizes_is_refused():
    with pytest.raises(ValueError, match="needs the image model"):
        inflate(Magvit2(image_params(PAPER_LIKE)), PATCHED)
    with pytest.raises(ValueError, match="needs the image model"):
        inflate(Magvit2(PAPER_LIKE), PAPER_LIKE)


def test_images_train_the_last_slice_of_every_kernel_only():
    model = scrambled(PAPER_LIKE)
    output = model(clip(1, 3, 1, 16, 16))
    (output.reconstruction.square().mean() + output.losses.commitment).backward()
    kernels = [p.grad for p in model.parameters() if p.ndim == 5 and p.shape[2] == 3]
    assert kernels
    assert all(float(grad[:, :, :-1].abs().max()) == 0.0 for grad in kernels)
    assert all(float(grad[:, :, -1].abs().max()) > 0.0 for grad in kernels)


def test_forward_agrees_with_encode_and_decode_and_reaches_every_weight():
    model = scrambled(PATCHED)
    video = clip(2, 3, 5, 16, 16)
    output = model(video)
    assert torch.equal(output.codes, model.encode(video))
    torch.testing.assert_close(output.reconstruction.clamp(-1, 1).detach(), model.decode(output.codes))
    assert output.latents.shape == (2, 6, 2, 2, 2)
    (output.reconstruction.square().mean() + output.losses.token_entropy + output.losses.commitment).backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert unreached == []


def test_normalising_latents_changes_their_scale_and_no_code():
    plain = scrambled(dataclasses.replace(PATCHED, normalize_latents=False))
    normal = Magvit2(PATCHED)
    normal.load_state_dict(plain.state_dict())
    video = clip(2, 3, 5, 16, 16)
    assert torch.equal(plain.encode(video), normal.encode(video))
    with torch.no_grad():
        power = normal.encode_latents(video).square().mean(dim=1)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=1e-3)


def test_saved_model_loads_as_it_was(tmp_path):
    model = scrambled(PATCHED)
    model.save_pretrained(tmp_path)
    again = Magvit2.from_pretrained(tmp_path)
    video = clip(1, 3, 5, 16, 16)
    assert again.params == model.params
    assert not again.training
    assert torch.equal(again.encode(video), model.encode(video))
    torch.testing.assert_close(again.decode(model.encode(video)), model.decode(model.encode(video)), rtol=0, atol=0)


def test_half_precision_on_disk_still_reconstructs(tmp_path):
    model = scrambled(PATCHED)
    model.save_pretrained(tmp_path, dtype=torch.float16)
    again = Magvit2.from_pretrained(tmp_path)
    codes = model.encode(clip(1, 3, 5, 16, 16))
    assert next(again.parameters()).dtype == torch.float32
    torch.testing.assert_close(again.decode(codes), model.decode(codes), rtol=0, atol=0.05)


def test_wrong_inputs_are_refused_with_the_way_out():
    model = Magvit2(PATCHED)
    with pytest.raises(ValueError, match="use 5 or 9"):
        model.encode(clip(1, 3, 8, 16, 16))
    with pytest.raises(ValueError, match="positive multiples of 8 and 8"):
        model.encode(clip(1, 3, 5, 12, 16))
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
        model.encode(clip(1, 3, 5, 16, 16) * 200)
    with pytest.raises(ValueError, match=r"codes must be integers of shape \(b, 1, t, h, w\)"):
        model.decode(torch.zeros(1, 2, 2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 64\)"):
        model.decode(torch.full((1, 1, 2, 2, 2), 64))
    with pytest.raises(ValueError, match="unknown MAGVIT-v2 preset 'huge'; known: magvit2-base, magvit2-base-image"):
        magvit2("huge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_downsample": (True,)}, "4 channel_multipliers need 3 flags"),
        ({"norm_groups": 5}, r"width \(8\) must be a multiple of norm_groups \(5\)"),
        ({"bits": 0}, r"bits \(0\) must be between"),
        ({"temporal_kernel": 2}, r"temporal_kernel \(2\) must be 3, or 1"),
        ({"norm_scope": "batch"}, "unknown norm_scope 'batch'; known: clip, frame"),
        ({"dropped_frame": 2}, r"dropped_frame \(2\) must be 0 or 1"),
    ],
)
def test_impossible_params_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PAPER_LIKE, **change)


def test_presets_agree_on_the_video_poet_clock():
    assert {params.fps for params in PRESETS.values()} == {8.0}


@pytest.mark.parametrize("params", [PAPER_LIKE, PATCHED])
def test_a_deepened_decoder_changes_nothing_until_it_is_trained(params, tmp_path):
    torch.manual_seed(0)
    model = Magvit2(params).eval()
    deeper = deepen_decoder(model, 3).eval()
    codes = torch.randint(model.codebook_size, (1, 1, 2, 2, 2))
    assert torch.equal(model.decode(codes), deeper.decode(codes))
    assert len(deeper.decoder.mid) == 3 and len(deeper.encoder.mid) == len(model.encoder.mid) == 1
    deeper.save_pretrained(tmp_path)
    assert torch.equal(Magvit2.from_pretrained(tmp_path).decode(codes), model.decode(codes))
    with torch.no_grad():
        deeper.decoder.mid[2].conv2.weight.add_(0.1)
    assert not torch.equal(model.decode(codes), deeper.decode(codes))
    with pytest.raises(ValueError, match="has 3 blocks"):
        deepen_decoder(deeper, 2)


@pytest.mark.parametrize("dropped_frame", [0, 1])
def test_a_model_trained_on_images_shows_a_still_clip_as_one_picture(dropped_frame):
    params = dataclasses.replace(PAPER_LIKE, dropped_frame=dropped_frame)
    torch.manual_seed(0)
    model = Magvit2(params)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for seed in range(8):
        image = clip(2, 3, 1, 16, 16, seed=seed) if "seed" in clip.__code__.co_varnames else clip(2, 3, 1, 16, 16)
        optimizer.zero_grad()
        (model(image).reconstruction - image).square().mean().backward()
        optimizer.step()
    model.eval()
    signs = model.encode_latents(clip(1, 3, 1, 16, 16)).sign()
    still = signs.expand(-1, -1, 3, -1, -1)

    def spread():
        with torch.no_grad():
            frames = model.decode_signs(still)
        return float((frames - frames[:, :, :1]).abs().max())

    assert spread() > 1e-2  # the channels of the dropped frame have learned nothing
    finish_images(model, optimizer)
    assert spread() < 1e-4
    for up in (u for u in model.decoder.ups if u.factor[0] == 2):
        for weight in up.conv.parameters():
            first, second = optimizer.state[weight]["exp_avg"].chunk(2)
            assert torch.equal(first, second)
