"""``cinepoet convert``: published weights to a folder that every command and ``mmtok.load`` takes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from recipes.commands.common import check_folder

SUMMARY = "turn published weights into a folder that cinepoet loads"
EXAMPLES = """\
  cinepoet convert autoencoder.jit --out cosmos-dv            # the family is read off the names
  cinepoet convert encoder.jit decoder.jit --out cosmos-dv
  cinepoet convert video_128_262144.ckpt --out open-magvit2
  cinepoet convert vidtok_fsq_causal_488_32768_v1_1.ckpt --version v1_1 --out vidtok
  cinepoet convert model.safetensors --config config.json --out larp     # LARP's tokenizer and its generators
  cinepoet reconstruct clip.mp4 --tokenizer cosmos-dv --out again.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options.

    Args:
        parser: of the command.
    """
    parser.add_argument("weights", nargs="+", type=Path, metavar="FILE", help=".safetensors, .ckpt, .pt or .jit")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="receives config and weights")
    parser.add_argument("--family", metavar="F", help="such as cosmos-dv (default: read off the names)")
    parser.add_argument("--version", choices=("v1_0", "v1_1"), help="of VidTok, which leaves no trace in the weights")
    parser.add_argument("--config", type=Path, metavar="F.json", help="upstream's sizes (default: read off the shapes)")


def run(args: argparse.Namespace) -> int:
    """Read, build, write.

    Args:
        args: as parsed.

    Returns:
        The exit code.
    """
    import torch

    import llm.convert
    import mmtok.convert
    from mmtok.convert.container import read_checkpoint
    from mmtok.table import FAMILIES as TABLE

    config = None
    if args.config is not None:
        if not args.config.is_file():
            raise FileNotFoundError(f"config {args.config} does not exist")
        config = json.loads(args.config.read_text())
        if not isinstance(config, dict):
            raise ValueError(f"{args.config} must hold a table of upstream's sizes")
    tensors: dict[str, torch.Tensor] = {}
    for file in args.weights:
        tensors |= read_checkpoint(file)
    known = (*mmtok.convert.FAMILIES, *llm.convert.FAMILIES)
    family = args.family or mmtok.convert.identify(tensors) or llm.convert.identify(tensors)
    if family is None:
        raise ValueError(f"{args.weights[0]} is of no family known here; known: {', '.join(known)}")
    if family not in known:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(known)}")
    if args.version is not None:
        if family != "vidtok-fsq":
            raise ValueError(f"--version is VidTok's; these weights are {family}")
        config = {**(config or {}), "version": args.version}
    speaks = family in llm.convert.FAMILIES
    model = (llm.convert if speaks else mmtok.convert).from_upstream(family, tensors, config)
    check_folder(args.out)
    model.save_pretrained(args.out)
    count = sum(p.numel() for p in model.parameters())
    if speaks:
        told = f"{model.config.num_tokens} tokens of {model.config.vocab_size} codes"
        licence = llm.convert.WEIGHTS_LICENCE
    else:
        told = f"{model.codebook_size} codes, stride {model.stride}"
        licence = TABLE[model.family].weights or "see their source"
    print(f"{args.out}: {family}, {count / 1e6:.1f} M parameters, {told}")
    print(f"licence of the published weights: {licence}")
    return 0
