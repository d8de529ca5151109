"""Speed and memory of the frozen T5 at its published sizes: ``python -m recipes.bench.text --size xl``.

A random encoder of the size is saved in shards as a hub repository has them, in a folder that is deleted at the end,
and each case loads it in a process of its own: load and first batch, captions per second, peak memory of the whole
process. "mapped GB" of it are pages of files, which processes share and the system takes back when it needs them.
Captions are split with the embedded vocabulary, which does not change the work of a place.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import mmtok  # noqa: F401  (lets transformers import beside any torchaudio)
from mmtok.pretrained import resolve_folder
from mmtok.text.t5 import PUBLISHED, T5TextEncoder, empty_encoder, published_config
from recipes.bench.harness import Bench, Measured, median_seconds, one_by_one
from recipes.runtime.memory import forget_peak, peak_gb

_SHARD_BYTES = 512 << 20


def save_random(folder: Path, size: str, dtype: torch.dtype, *, shard_bytes: int = _SHARD_BYTES) -> int:
    """A random encoder of a published size in shards, never more than one of them in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    config = published_config(size)
    shapes = {n: p.shape for n, p in empty_encoder(config).named_parameters()}  # a tied table once
    shards: list[dict[str, torch.Size]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        if filled >= shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += shape.numel() * dtype.itemsize
    generator = torch.Generator().manual_seed(0)
    for number, shard in enumerate(shards, start=1):
        tensors = {}
        for name, shape in shard.items():
            if len(shape) == 1:
                tensors[name] = torch.ones(shape, dtype=dtype)
            else:
                tensors[name] = torch.empty(shape, dtype=dtype).normal_(std=shape[1] ** -0.5, generator=generator)
        save_file(tensors, folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors", metadata={"format": "pt"})
        del tensors
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(resolve_folder("tiny/text") / "spiece.model", folder)
    return sum(shape.numel() for shape in shapes.values()) * dtype.itemsize


def _mapped_gb() -> float:
    """Pages of files that are in this process' memory now (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(x for x in status.read_text().splitlines() if x.startswith("RssFile"))
    return int(line.split()[1]) * 1024 / 1e9


def captions_of(count: int, pieces: int, encoder: T5TextEncoder) -> list[str]:
    """Different captions of a length."""
    from recipes.corpora.shapes import ShapesCorpus

    corpus, texts = ShapesCorpus(0, "all"), []
    for number in range(count):
        words = " and ".join(corpus.scene(number * 31 + part).caption for part in range(1 + pieces // 4)).split()
        texts.append(encoder.tokenizer.tokenize(" ".join(words), pieces).kept)
    return texts


@torch.inference_mode()
def case(args: argparse.Namespace) -> dict[str, Any]:
    """One batch size and length in one type."""
    device = torch.device(args.device)
    started = time.perf_counter()
    import transformers.models.t5.modeling_t5  # noqa: F401  (its import is not the load)

    imported_s = time.perf_counter() - started
    forget_peak()
    started = time.perf_counter()
    encoder = T5TextEncoder.from_pretrained(args.folder, dtype=getattr(torch, args.dtype), device=device)
    load_s = time.perf_counter() - started
    texts = captions_of(args.batch, args.pieces, encoder)
    places = sum(len(encoder.tokenize(text).ids) for text in texts)
    started = time.perf_counter()
    embeddings, _ = encoder.encode(texts)
    first_s = time.perf_counter() - started
    if not bool(torch.isfinite(embeddings).all()):
        raise ValueError("vectors are not finite")
    seconds = median_seconds(lambda: encoder.encode(texts), runs=args.runs, device=device)
    row = {
        "batch": args.batch,
        "pieces": places / len(texts),
        "import s": imported_s,
        "load s": load_s,
        "first batch s": first_s,
        "captions/s": len(texts) / seconds,
        "tokens/s": places / seconds,
        "peak GB": peak_gb(),
        "mapped GB": _mapped_gb(),
    }
    if device.type == "cuda":
        row["GPU GB"] = torch.cuda.max_memory_allocated(device) / 1e9
    return row


def measure(args: argparse.Namespace) -> Measured:
    """Every batch size and length on one encoder, which is deleted at the end."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch) / "t5"
        started = time.perf_counter()
        stored = save_random(folder, args.size, getattr(torch, args.stored))
        saved_s = time.perf_counter() - started
        print(
            f"T5 v1.1 {args.size}: {stored / 1e9:.2f} GB in {args.stored}, written in {saved_s:.1f} s", file=sys.stderr
        )
        sizes = [{"batch": b, "pieces": n} for n in args.lengths for b in args.batches]
        return one_by_one(args, [{"case": "one", "folder": folder, **size} for size in sizes], title=args.size)


def main(words: list[str] | None = None) -> int:
    """Save a random encoder, run every case and print the table."""
    bench = Bench("text", __doc__, {None: measure}, {None: case})
    bench.add("--size", choices=tuple(PUBLISHED), default="xl")
    bench.add("--stored", choices=("bfloat16", "float32"), default="bfloat16", help="type on disk")
    bench.add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="type of the computation")
    bench.add("--batches", type=int, nargs="+", default=[1, 8])
    bench.add("--lengths", type=int, nargs="+", default=[16, 64], metavar="PIECES")
    bench.add("--threads", type=int, default=1)
    bench.add("--scratch", type=Path, help="where the weights lie meanwhile (default: the system's)")
    args = bench.parse(words)
    torch.set_num_threads(args.threads)
    return bench.run(args, told=f"T5 v1.1 {args.size}, {args.dtype}, on {{where}}")


if __name__ == "__main__":
    sys.exit(main())
