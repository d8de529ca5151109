"""``cinepoet embed``: the vectors of a caption set on disk, so that training needs no text encoder in memory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.terminal.options import add_device, number
from recipes.terminal.report import check_folder, compute_of, note

SUMMARY = "store the text vectors of captions, each caption once"
EXAMPLES = """\
  cinepoet embed captions.txt --text t5-v1_1-xl --out vectors
  cinepoet embed clips.csv --column title --text google/t5-v1_1-xl --revision COMMIT --out vectors
  cinepoet embed shards/ --text tiny --out vectors             # the captions of a folder of tokens
  printf '%s\\n' "blurry, low quality" | cinepoet embed - --text t5-v1_1-xl --out vectors   # a negative prompt joins
A stopped run goes on with the same command. In Python: EmbeddingCache.open("vectors")(captions), of
mmtok.text.embedding_cache.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "captions",
        metavar="CAPTIONS",
        help=".txt (a line each), .csv, .jsonl, .parquet, folder of tokens, or - (stdin)",
    )
    parser.add_argument("--text", required=True, metavar="M", help="T5 folder, hub id, or model such as tiny")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="receives or already holds vectors")
    parser.add_argument("--column", metavar="C", help="of tables: where captions stand (default: caption)")
    parser.add_argument("--revision", metavar="R", help="of a hub id: branch, tag or commit (default: the newest)")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the computation (default: bfloat16)"
    )
    parser.add_argument(
        "--max-length", type=number(int, 2), default=64, metavar="N", help="most pieces of a caption (default: 64)"
    )
    parser.add_argument("--batch-size", type=number(int, 1), default=32, metavar="N", help="(default: 32)")
    parser.add_argument("--report", type=Path, metavar="F.jsonl", help="every caption that was not read whole, and why")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Read the captions, then encode what is missing."""
    import json
    import time
    from textwrap import shorten

    import torch

    from mmtok.files import write_atomically
    from mmtok.text.embedding_cache import embed_captions
    from recipes.corpora.captions import read_captions
    from recipes.runtime.progress import sampling_bar

    captions = read_captions(args.captions, column=args.column)
    if args.report is not None:
        check_folder(args.report.absolute().parent)
    check_folder(args.out)
    compute = compute_of(args)
    dtype = getattr(torch, args.dtype)
    encoder = _encoder(args.text, args.revision, dtype=dtype, device=compute.device, max_length=args.max_length)
    lines: list[str] = []

    def on_reading(caption: str, read: Any) -> None:
        lines.append(json.dumps({"caption": caption, "cut": read.cut, "unknown": read.unknown}, ensure_ascii=False))
        if len(lines) <= 3:
            reasons = {"left out": read.cut, "unknown to the text encoder": read.unknown}
            told = (f"{why}: {shorten(words, 80, placeholder=' ...')!r}" for why, words in reasons.items() if words)
            note(f"{shorten(caption, 60, placeholder=' ...')!r}: {', '.join(told)}")

    started = time.monotonic()
    with sampling_bar() as on_step:
        report = embed_captions(
            captions,
            encoder,
            args.out,
            batch_size=args.batch_size,
            on_reading=on_reading,
            on_progress=lambda done, total: on_step("captions", done, total),
        )
    seconds = time.monotonic() - started
    if args.report is not None:
        write_atomically(args.report, "".join(line + "\n" for line in lines))
    if len(lines) > 3:
        note(f"and {len(lines) - 3} more" + ("" if args.report else "; --report F.jsonl lists all"))
    counts = f"{report.captions} captions, {report.distinct} distinct, {report.encoded} encoded in {seconds:.1f} s"
    print(
        f"{args.out}: {counts}"
        + (f"; {report.cut} longer than {args.max_length} pieces" if report.cut else "")
        + (f"; {report.unknown} with words that have no pieces" if report.unknown else "")
    )
    return 0


def _encoder(text: str, revision: str | None, **options: Any) -> Any:
    """The text encoder, by itself or as part of a model."""
    from mmtok.loading import part_folder
    from mmtok.pretrained import BUNDLE_FILE
    from mmtok.text.t5 import T5TextEncoder

    place = text if revision is not None else part_folder(text, "text")
    encoder = T5TextEncoder.from_pretrained(place, revision=revision, **options)
    if (Path(place).parent / BUNDLE_FILE).is_file():
        encoder.name = Path(place).parent.name  # of the model that it is a part of
    return encoder
