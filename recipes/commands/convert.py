"""``cinepoet convert``: published weights to a folder that every command and ``mmtok.load`` takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.terminal.report import check_folder, note

SUMMARY = "turn published weights into a folder that cinepoet loads, or a language model into one for other programs"
EXAMPLES = """\
  cinepoet convert autoencoder.jit --out cosmos-dv            # the family is read off the names
  cinepoet convert encoder.jit decoder.jit --out cosmos-dv
  cinepoet convert video_128_262144.ckpt --out open-magvit2
  cinepoet convert vidtok_fsq_causal_488_32768_v1_1.ckpt --version v1_1 --out vidtok
  cinepoet convert model.safetensors --config config.json --out larp     # LARP's tokenizer and its generators
  cinepoet convert encodec_24khz-d7cc33bc.th --out encodec    # of the encodec package
  cinepoet convert t5/pytorch_model.bin --out t5-v1_1-xl      # T5's encoder; config.json and spiece.model lie beside
  cinepoet convert tiny --to qwen3 --out exported             # the language model, for transformers and its kin
  cinepoet convert exported --out lm                          # and back
  cinepoet reconstruct clip.mp4 --tokenizer cosmos-dv --out again.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "weights", nargs="+", type=Path, metavar="FILE", help=".safetensors, .ckpt, .pt, .th, .bin or .jit"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="receives config and weights")
    parser.add_argument("--family", metavar="F", help="such as cosmos-dv (default: read off the names)")
    parser.add_argument("--version", choices=("v1_0", "v1_1"), help="of VidTok (default: by the file name)")
    parser.add_argument(
        "--no-ema", action="store_true", help="of Open-MAGVIT2: the weights themselves, not their running average"
    )
    parser.add_argument("--to", choices=("qwen3",), help="write our language model in this format of transformers")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="of T5's weights (bfloat16) and of an export's (float32)"
    )
    parser.add_argument("--config", type=Path, metavar="F.json", help="upstream's sizes (default: read off the shapes)")


def run(args: argparse.Namespace) -> int:
    """Read, build, write."""
    import torch

    import llm.convert
    import mmtok.convert
    from mmtok.convert.checkpoints import read_checkpoint
    from mmtok.convert.t5 import is_t5
    from mmtok.pretrained import read_json
    from mmtok.table import TOKENIZERS

    if args.to is not None or args.weights[0].is_dir():
        return _language_model(args)
    if args.family == "t5" or (args.family is None and is_t5(args.weights[0])):
        return _text_encoder(args)
    if args.dtype is not None:
        raise ValueError("--dtype is a choice for T5 and with --to; other weights keep theirs")
    config = None
    if args.config is not None:
        if not args.config.is_file():
            raise FileNotFoundError(f"config {args.config} does not exist")
        config = read_json(args.config)
        if not isinstance(config, dict):
            raise ValueError(f"{args.config} must hold a table of upstream's sizes")
    tensors: dict[str, torch.Tensor] = {}
    for file in args.weights:
        tensors |= read_checkpoint(file)
    known = (*mmtok.convert.known_families(), *llm.convert.FAMILIES)
    family = args.family or mmtok.convert.identify(tensors) or llm.convert.identify(tensors)
    if family is None:
        raise ValueError(f"{args.weights[0]} is of no family known here; known: {', '.join(known)}")
    if family not in known:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(known)}")
    if args.no_ema and not family.startswith("open-magvit2"):
        raise ValueError(f"--no-ema is Open-MAGVIT2's; these weights are {family}")
    if args.version is not None:
        if family != "vidtok-fsq":
            raise ValueError(f"--version is VidTok's; these weights are {family}")
        config = {**(config or {}), "version": args.version}
    if family == "vidtok-fsq" and "version" not in (config or {}):  # the weights of both are alike
        newer = any("v1_1" in file.name or "v1.1" in file.name for file in args.weights)
        config = {**(config or {}), "version": "v1_1" if newer else "v1_0"}
        note(f"taken as VidTok {config['version']} by the file's name; --version says otherwise")
    if family in llm.convert.FAMILIES:
        model = llm.convert.from_upstream(family, tensors, config)
        told = f"{model.config.num_tokens} tokens of {model.config.vocab_size} codes"
        licence = llm.convert.WEIGHTS_LICENCE
    else:
        model = mmtok.convert.from_upstream(family, tensors, config, ema=not args.no_ema)
        told = f"{model.codebook_size} codes, "
        row = TOKENIZERS.rows()[model.family]
        if row.kind == "audio":
            told += f"{model.num_codebooks} levels, {model.frame_rate:g} frames a second of {model.hop_length} samples"
        else:
            told += f"stride {model.stride}"
        licence = row.weights or "see their source"
    check_folder(args.out)
    model.save_pretrained(args.out)
    print(f"{args.out}: {family}, {_millions(model)} M parameters, {told}")
    print(f"licence of the published weights: {licence}")
    return 0


def _text_encoder(args: argparse.Namespace) -> int:
    """T5: its encoder and its vocabulary."""
    import torch

    from mmtok.convert.t5 import encoder_from_files

    _refuse(args, ("version", "config", "no_ema"), "T5's: its config.json lies beside the weights")
    check_folder(args.out)
    encoder = encoder_from_files(args.weights, dtype=getattr(torch, args.dtype or "bfloat16"))
    encoder.save_pretrained(args.out)
    print(f"{args.out}: t5, {_millions(encoder.model)} M parameters of the encoder, vectors of {encoder.dim}")
    return 0


def _language_model(args: argparse.Namespace) -> int:
    """Our language model as transformers' Qwen3, or such a folder back."""
    import torch

    from llm.convert.qwen3 import export_qwen3, import_qwen3, is_export, reads_positions
    from llm.model import PrefixLM
    from mmtok.loading import part_folder

    _refuse(args, ("family", "version", "config", "no_ema"), "a language model's: its folder says what it is")
    source = args.weights[0]
    if len(args.weights) > 1:
        raise ValueError(f"one model at a time, got {len(args.weights)}")
    if args.to is None:
        if args.dtype is not None:
            raise ValueError("--dtype is a choice for T5 and with --to; other weights keep theirs")
        if not is_export(source) and not (source / "config.json").is_file():
            raise ValueError(f"{source} is a folder; name the files of weights in it")
        model = import_qwen3(source)
        check_folder(args.out)
        model.save_pretrained(args.out)
        print(f"{args.out}: prefix-lm, {_millions(model)} M parameters")
        return 0
    model = PrefixLM.from_pretrained(part_folder(source, "lm"))
    check_folder(args.out)
    export_qwen3(model, args.out, dtype=getattr(torch, args.dtype) if args.dtype else None)
    print(f"{args.out}: {args.to}, {_millions(model.model)} M parameters")
    if reads_positions(model):
        note("this model adds positions to its embeddings; other programs must too (docs/export.md)")
    return 0


def _millions(model: Any) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}"


def _refuse(args: argparse.Namespace, options: tuple[str, ...], why: str) -> None:
    for option in options:
        if getattr(args, option):
            raise ValueError(f"--{option.replace('_', '-')} is not {why}")
