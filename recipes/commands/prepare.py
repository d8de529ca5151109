"""``cinepoet prepare``: films and pictures with captions to token shards, and the check of such shards."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from recipes.terminal.options import add_device, add_seed, add_tokenizer, add_tokenizer_parts, number
from recipes.terminal.report import check_folder, compute_of, note

SUMMARY = "turn films and pictures with captions into token shards that the language model trains on"
EXAMPLES = """\
  cinepoet prepare FILMS --captions FILMS/captions.csv --out tokens
  cinepoet prepare listing.jsonl --num-frames 17,41 --aspect square,portrait --conditions all --out tokens
  cinepoet prepare "shards/*.tar" --out tokens --part 3/8             # this process takes every eighth shard
  cinepoet prepare shapes --scenes 1000 --out tokens
  cinepoet prepare --check tokens
"""
_SHOWN = 20  # entries of a list that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="folder of media, listing (.csv, .jsonl), WebDataset (.tar), .parquet, saved data set, hub id, or a "
        "corpus' name: shapes",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the shards go; a stopped run goes on there")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="look at every row of finished shards instead")
    add_tokenizer(parser)
    add_tokenizer_parts(parser)
    add_device(parser)
    texts = parser.add_argument_group("texts")
    texts.add_argument("--captions", metavar="F", help=".csv or .jsonl with columns path and caption, for a folder")
    texts.add_argument(
        "--uncaptioned", choices=("refuse", "keep", "skip"), default="refuse", help="films without a text where others"
        " have one (default: refuse)"
    )  # fmt: skip
    texts.add_argument("--media-column", metavar="C", help="of a listing or data set (default: path, video, image ...)")
    texts.add_argument("--caption-column", metavar="C", help="the same (default: caption, text ...)")
    texts.add_argument("--collection", metavar="NAME", help="name of the data source, for the <source> token")
    clips = parser.add_argument_group("clips")
    clips.add_argument("--num-frames", metavar="N,N", help="lengths, such as 17,41 (default: the model's)")
    clips.add_argument("--aspect", default="square", metavar="A,A", help="square, portrait or auto (default: square)")
    clips.add_argument("--size", type=number(int, 8), metavar="PX", help="width of the pictures (default: the model's)")
    clips.add_argument(
        "--clips-per-file", default="4", metavar="N", help="windows of a film at most, or all (default: 4)"
    )
    clips.add_argument("--skip-dull", action="store_true", help="leave out windows that are black or do not move")
    clips.add_argument("--conditions", default="", metavar="C,C", help="structure, inpaint_central ... or all")
    clips.add_argument("--flow", choices=("dis", "farneback"), help="flow of structure (default: dis)")
    clips.add_argument(
        "--depth", metavar="M", help="depth of structure: a Depth Anything by folder or hub id, or saturation"
    )
    clips.add_argument("--limit", type=number(int, 1), metavar="N", help="films at most")
    clips.add_argument("--scenes", type=number(int, 1), metavar="N", help="of shapes (default: 1000)")
    add_seed(parser)
    split = parser.add_argument_group("splits, shards and processes")
    split.add_argument(
        "--validation", type=number(float, 0), default=0.05, metavar="S", help="share kept (default: 0.05)"
    )
    split.add_argument("--split-by", choices=("source", "folder"), default="source", help="what stays together")
    split.add_argument("--shard", type=number(int, 1), default=512, metavar="N", help="clips a shard (default: 512)")
    split.add_argument("--batch-size", type=number(int, 1), default=16, metavar="N", help="clips encoded together")
    split.add_argument("--workers", type=number(int, 1), default=2, metavar="N", help="threads that read (default: 2)")
    split.add_argument("--part", metavar="I/N", help="make every N-th shard only (default: by RANK and WORLD_SIZE)")
    split.add_argument("--plan", action="store_true", help="only decide what each shard will hold")


def run(args: argparse.Namespace) -> int:
    """Prepare, or check."""
    if (args.source is None) == (args.check is None):
        raise ValueError("give SOURCE to prepare, or --check with a folder of shards; one of the two")
    if args.check is not None:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        untouched = vars(parser.parse_args([])) | {"check": args.check}
        if given := [name for name, value in untouched.items() if getattr(args, name) != value]:
            raise ValueError(f"--check looks at shards as they are: leave --{given[0].replace('_', '-')} out")
        return _check(args.check)
    from mmtok.visual.holistic import as_grid
    from recipes.bundle.named import load_tokenizers
    from recipes.corpora.named import SHAPES
    from recipes.tokens.conditions import Tokenizing
    from recipes.tokens.prepare import prepare

    if args.out is None:
        raise ValueError("say where the shards go: --out FOLDER")
    if args.scenes is not None and args.source != SHAPES:
        raise ValueError(f"--scenes goes with {SHAPES} only")
    part = part_of(args.part)
    compute = compute_of(args)
    chosen = load_tokenizers(args.tokenizer, compute.device, visual=args.visual, audio=args.audio)
    if chosen.visual is None:
        raise ValueError(f"films need a visual tokenizer, and {chosen.source} has none; name one with --visual")
    config = _config(args, args.size or chosen.token_size, chosen.clip)
    shape = (config.num_frames[0], config.size, config.size)
    tokenizing = Tokenizing(as_grid(chosen.visual, shape), chosen.audio, compute)
    check_folder(args.out)
    done = prepare(config, args.out, tokenizing, part=part, workers=args.workers, plan_only=args.plan)
    for text in done.notes:
        note(text)
    for entry in done.quarantined[:_SHOWN]:
        note(f"{entry['source']}: {entry['reason']}")
    if len(done.quarantined) > _SHOWN:
        note(f"and {len(done.quarantined) - _SHOWN} more")
    print(_describe(args.out, done))
    return 0


def _check(folder: Path) -> int:
    from recipes.tokens.check import validate
    from recipes.tokens.shards import ShardInfo, read_records

    faults = validate(folder)
    for fault in faults[:_SHOWN]:
        print(fault)
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ValueError(f"{folder} cannot be trained on: {faults[0]}{more}")
    records = [record for record in read_records(folder, ShardInfo.read(folder).shards) if record is not None]
    print(f"{folder}: {sum(record['rows'] for record in records)} rows in {len(records)} shards, all as they should be")
    return 0


def _describe(folder: Path, done: Any) -> str:
    n = done.counts
    if done.done < done.shards:
        state = f"{done.done} of {done.shards} shards"
        return f"{folder}: {state} of {n['films']} films so far, {n['clips']} clips; the others are still to be made"
    speed = f", {done.encoded / done.seconds:.1f} clips/s" if done.encoded else ", nothing was left to do"
    return (
        f"{folder}: {n['clips']} clips of {n['films']} films in {done.shards} shards ({n['train']} train, "
        f"{n['validation']} validation), {n['sounding']} with sound, {n['captioned']} with captions, "
        f"{n['quarantined']} left out (quarantine.jsonl){speed}"
    )


def part_of(text: str | None) -> tuple[int, int]:
    """Which shards are this process's, number from 0 and of how many: "I/N", or None for torchrun's numbers."""
    if text is None:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--part takes I/N with I from 1 to N, such as 3/8, got {text!r}")
    return int(found[1]) - 1, int(found[2])


def _lengths(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text or ""))
    except ValueError:
        raise ValueError(f"--num-frames takes whole numbers such as 17,41, got {text!r}") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _config(args: argparse.Namespace, size: int, frames: int) -> Any:
    from mmtok.conditions.commit_masks import PAINTINGS
    from mmtok.conditions.structure import SATURATION
    from recipes.corpora.named import SHAPES
    from recipes.tokens.plan import STRUCTURE, PrepareConfig

    conditions = _words(args.conditions)
    if "all" in conditions:
        conditions = [STRUCTURE, *(name for names in PAINTINGS.values() for name in names)]
    for option in ("flow", "depth"):
        if getattr(args, option) is not None and STRUCTURE not in conditions:
            raise ValueError(f"--{option} goes with --conditions structure")
    if args.clips_per_file != "all" and not (args.clips_per_file.isdecimal() and int(args.clips_per_file) > 0):
        raise ValueError(f"--clips-per-file takes a positive number or all, got {args.clips_per_file!r}")
    same = (
        *("source", "captions", "uncaptioned", "media_column", "caption_column", "collection", "split_by"),
        *("validation", "seed", "limit", "skip_dull", "shard", "batch_size"),
    )
    told = {"depth": args.depth or (SATURATION if args.source == SHAPES else None), "flow": args.flow}
    told |= {"scenes": args.scenes}
    return PrepareConfig(
        num_frames=_lengths(args.num_frames) or (frames,),
        aspects=tuple(_words(args.aspect)),
        size=size,
        conditions=tuple(conditions),
        clips_per_file=None if args.clips_per_file == "all" else int(args.clips_per_file),
        **{name: getattr(args, name) for name in same},
        **{name: value for name, value in told.items() if value is not None},
    )
