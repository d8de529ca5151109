"""Speed and memory of the language model against transformers: ``python -m recipes.bench.lm KIND``.

decode   tokens a second of ``generate`` and of transformers' ``generate`` with a static cache over the same weights,
         taken in turns, with the share of the machine's memory bandwidth that the bytes of a step make up
loss     time and memory of the cross-entropy behind a large head: plain, ours, torch's ``linear_cross_entropy``
train    time and memory of a training step: transformers with plain cross-entropy, ours in its forms
quality  what 16-bit and int8 weights cost a trained model: loss on unseen scenes, best ids that stay the same

Random weights (seed 0) but for ``quality``. Cases of ``loss`` and ``train`` run in a process each; peaks are of the
process' resident memory, on CUDA of the device's. "Extra" memory is above weights, inputs and gradients.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.batching import Batch
from llm.config import PRESETS, preset
from llm.cross_entropy import linear_cross_entropy
from llm.generate import StepDecoder, generate
from llm.int8 import Int8Linear
from llm.loss import prefix_lm_loss
from llm.model import PrefixLM
from llm.tasks import Clip, task_layout
from mmtok.vocabulary import Block
from recipes.bench.harness import (
    Bench,
    Measured,
    bandwidth_gb_s,
    forget_peak,
    machine,
    median_seconds,
    one_by_one,
    peak_gb,
)

MODES = {
    "decode": ("transformers fp32", "ours fp32", "ours bf16", "ours int8", "ours fp16", "transformers bf16"),
    "loss": ("plain", "ours", "torch"),
    "train": (
        "transformers, plain cross-entropy",
        "ours, full softmax",
        "ours, block softmax",
        "ours, full softmax, recomputed layers",
        "ours, halved codes",
    ),
    "quality": ("fp32", "bf16", "fp16", "int8"),
}
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROWS = 4  # sequences of ``quality`` at a time, few enough for the int8 kernel
USUAL_DECODING = MODES["decode"][:5]


def plain_model(model: PrefixLM) -> Any:
    """transformers' Qwen3 over the very tensors of a model, without its positions and text projection."""
    import mmtok.compat

    mmtok.compat.make_importable()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from llm.convert.qwen3 import qwen3_sizes

    sizes = qwen3_sizes(model.config) | {"attn_implementation": "sdpa"}
    theirs: Any = Qwen3ForCausalLM(Qwen3Config(**sizes))
    shared = {k: v for k, v in model.state_dict().items() if k.startswith(("model.", "lm_head."))}
    theirs.load_state_dict(shared, assign=True)
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = model.vocabulary.pad_id
    return theirs.to(model.text_proj.weight.device).eval()


def make_model(size: str, device: torch.device, **changes: Any) -> PrefixLM:
    """A model with random weights and without position vectors, which transformers' form does not have."""
    torch.manual_seed(0)
    model = PrefixLM(preset(size, **changes)).to(device)
    with torch.no_grad():
        for table in model.positions.parameters():
            table.zero_()
    return model


def step_bytes(model: PrefixLM, block: Block, places: float, batch: int) -> float:
    """What a step of sampling must read: all layers, a block of the head, keys and values."""
    layers = sum(w.numel() * w.element_size() for w in model.model.layers.state_dict().values())
    head = model.lm_head.codes if isinstance(model.lm_head, Int8Linear) else model.lm_head.weight
    config, table = model.config, model.model.embed_tokens.weight
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * places * batch * table.element_size()
    return layers + len(block) * config.dim * head.element_size() + cache


def decode(args: argparse.Namespace) -> Measured:
    """All modes in turns, so that a machine that slows down slows all."""
    device = torch.device(args.device)
    model = make_model(args.size, device).eval()
    grid = model.config.max_grid
    layout = task_layout("unconditional", model.vocabulary, Clip((grid[0], 16, 16)), text_slots=0)
    first = layout.stretch("visual_out").start
    tokens = min(args.tokens or (256 if args.size == "tiny" else 32), layout.stretch("visual_out").length)
    known = torch.ones(layout.length, dtype=torch.bool)
    known[first : first + tokens] = False
    ids = layout.template.repeat(args.batch, 1).to(device)

    models: dict[str, PrefixLM] = {"fp32": model}
    works: dict[str, Callable[[], Any]] = {}
    for mode in args.modes or USUAL_DECODING:
        kind = mode.split()[1]
        if kind not in models:
            models[kind] = copy.deepcopy(model)
            models[kind].quantize_weights("int8") if kind == "int8" else models[kind].to(HALVES[kind])
        used = models[kind]
        if mode.startswith("transformers"):
            options = {"max_new_tokens": tokens, "do_sample": False, "cache_implementation": "static"}
            works[mode] = partial(plain_model(used).generate, ids[:, :first], **options)
        else:
            works[mode] = partial(generate, used, layout, ids, known, temperature=0.0)

    seconds: dict[str, list[float]] = {mode: [] for mode in works}
    bandwidth = bandwidth_gb_s(device)
    for run in range(args.runs + 1):
        for mode, work in works.items():
            taken = median_seconds(work, runs=1, device=device, warm_up=run == 0)
            if run:
                seconds[mode].append(taken)
    bandwidth = max(bandwidth, bandwidth_gb_s(device))

    rows = []
    reference = next(iter(works))
    for mode, times in seconds.items():
        used = models[mode.split()[1]]
        block = Block(0, used.config.table_size) if mode.startswith("transformers") else model.vocabulary.visual
        read = step_bytes(used, block, first + tokens / 2, args.batch) / 1e9
        rate = tokens / statistics.median(times)
        ratios = [mine / its for mine, its in zip(seconds[reference], times, strict=True)]
        rows.append(
            {
                "case": mode,
                "tokens/s": args.batch * rate,
                "ms a step": 1e3 / rate,
                "GB a step": read,
                "GB/s": read * rate,
                "memory GB/s": bandwidth,
                "share of memory %": 100 * read * rate / bandwidth,
                "x": statistics.median(ratios),
            }
        )
    return rows, f"{machine(device)}; {args.size}, batch {args.batch}, {tokens} visual tokens, in turns"


def loss_case(args: argparse.Namespace) -> dict[str, Any]:
    """One form, forwards and backwards."""
    device = torch.device(args.device)
    torch.manual_seed(0)
    m, v = args.batch * args.length, args.vocabulary
    rows = torch.randn(m, args.dim, device=device).requires_grad_()
    head = nn.Parameter(torch.randn(v, args.dim, device=device) * 0.02)
    targets = torch.randint(v, (m,), device=device)

    def total() -> Tensor:
        if args.case == "ours":
            return linear_cross_entropy(rows, head, targets, blocks=[(m, Block(0, v))]).total / m
        if args.case == "torch":
            options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256)  # type: ignore[attr-defined]
            return F.linear_cross_entropy(rows, head, targets, options=options)  # type: ignore[attr-defined,no-any-return]
        return F.cross_entropy(F.linear(rows, head).float(), targets)

    def step() -> None:
        rows.grad = head.grad = None
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            loss = total()
        loss.backward()

    forget_peak(device)
    before = peak_gb(device)
    step()
    gradients = (head.numel() + rows.numel()) * 4 / 1e9
    extra = peak_gb(device) - before - gradients
    assert head.grad is not None, "the step has run"
    norm = float(head.grad.norm())
    seconds = median_seconds(step, runs=args.runs, device=device, warm_up=False)
    return {"case": args.case, "s": seconds, "extra GB": extra, "gradient norm": norm}


def train_case(args: argparse.Namespace) -> dict[str, Any]:
    """One form of a training step of text to video, AdamW included."""
    device = torch.device(args.device)
    model = make_model(args.size, device, **({"visual_factors": 2} if "halved" in args.case else {}))
    config = model.config
    clip = Clip((min(5, config.max_grid[0]), args.side, args.side))
    layout = task_layout("text_to_video", model.vocabulary, clip, text_slots=config.text_slots)
    ids = layout.template.repeat(args.batch, 1)
    at = layout.stretch("visual_out")
    ids[:, at.start : at.stop] = torch.randint(256, model.vocabulary.visual.stop, (args.batch, at.length))
    ids = ids.to(device)
    text = torch.randn(args.batch, config.text_slots, config.text_dim, device=device)
    batch = Batch(layout, ids, text, torch.ones(text.shape[:2], dtype=torch.bool, device=device))
    theirs = plain_model(model).train() if args.case.startswith("transformers") else None
    if "recomputed" in args.case:
        model.checkpoint_layers()
    trained = theirs if theirs is not None else model.train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, fused=True)
    p = layout.prefix_length

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            if theirs is not None:
                logits = theirs(input_ids=ids, use_cache=False).logits[:, p - 1 : -1]
                loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, p:].flatten())
            else:
                loss = prefix_lm_loss(model, batch, full_softmax="full" in args.case).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # makes the optimizer's state
    forget_peak(device)
    seconds = median_seconds(step, runs=args.runs, device=device, warm_up=False)
    return {"case": args.case, "s": seconds, "tokens/s": ids.numel() / seconds, "peak GB": peak_gb(device)}


def compare(args: argparse.Namespace) -> Measured:
    """The cases of ``loss`` or ``train``, each in a process of its own, beside the first."""
    modes = args.modes or MODES[args.kind]
    rows, where = one_by_one(args, [{"case": mode} for mode in modes], title=args.kind)
    memory = "extra GB" if args.kind == "loss" else "peak GB"
    for row in rows:
        row["time x"], row["memory x"] = rows[0]["s"] / row["s"], rows[0][memory] / row[memory]
    sizes = f"{args.batch} x {args.length} places x {args.vocabulary}, width {args.dim}"
    return rows, f"{where}; {sizes if args.kind == 'loss' else f'{args.size}, batch {args.batch}'}, {args.precision}"


@torch.inference_mode()
def step_scores(model: PrefixLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss and best id at every output place, through prefix and steps as in sampling."""
    layout, p = batch.layout, batch.layout.prefix_length
    readable = None if batch.text_mask is None else layout.readable(batch.text_mask)
    decoder = StepDecoder(model, layout, readable, len(batch.ids))
    x = model.embed(batch.ids, layout, text=batch.text)[:, :p]
    hidden = decoder.prefill(x, layout.attention_mask(batch.text_mask)[:, :, :p, :p])[:, -1]
    nats, best = [], []
    for place in range(p, layout.length):
        start, stop = layout.blocks[place].tolist()
        if stop - start > 1:
            scores = decoder.logits(hidden, start, stop).float()
            nats.append(F.cross_entropy(scores, batch.ids[:, place] - start, reduction="none"))
            best.append(start + scores.argmax(-1))
        if place < layout.length - 1:
            hidden = decoder.step(batch.ids[:, place])
    return torch.stack(nats, dim=1), torch.stack(best, dim=1)


def quality(args: argparse.Namespace) -> Measured:
    """A bundle's language model on scenes that no training saw."""
    # Matrices that were stored as int8, as those of embedded models, lose nothing more by ``int8``: what is left is the
    # rounding of what they are multiplied with. ``--lm`` measures a model whose file has floats.
    import mmtok
    from llm.batching import make_groups
    from recipes.bundle.folder import open_bundle
    from recipes.runtime.device import choose_compute
    from recipes.tokens.caption_vectors import CaptionVectors
    from recipes.tokens.lm_batches import cached_data, make_batch
    from recipes.tokens.shapes import EncodeConfig, encode_shapes

    bundle, compute = open_bundle(args.model), choose_compute("cpu", "float32")
    model = PrefixLM.from_pretrained(args.lm or bundle.part("lm"))
    config = model.config
    encode = EncodeConfig(
        split="heldout", scenes=args.scenes, size=bundle.config.size, num_frames=bundle.config.num_frames
    )
    with tempfile.TemporaryDirectory() as folder:
        visual, audio = mmtok.load(bundle.part("visual")), mmtok.load(bundle.part("audio"))
        tokens = encode_shapes(encode, Path(folder), visual=visual, audio=audio, compute=compute)
    captions = CaptionVectors(tokens.captions, mmtok.load(bundle.part("text")), slots=config.text_slots)
    assert tokens.audio is not None, "the corpus has sound"
    grid = tokens.low.shape[1:]
    (group,) = make_groups(
        {"text_to_video": 1.0},
        model.vocabulary,
        Clip((grid[0], grid[1], grid[2]), tokens.audio.shape[2]),
        text_slots=config.text_slots,
        audio_order=config.audio_order,
    )
    batch = make_batch(
        group,
        torch.arange(len(tokens)),
        data=cached_data(tokens, validation_rows=0),
        captions=captions,
        device=compute.device,
    )
    rows: list[dict[str, Any]] = []
    reference, loss = torch.empty(0), 0.0
    for mode in ("fp32", *(m for m in args.modes or MODES["quality"] if m != "fp32")):
        used = copy.deepcopy(model)
        dtype = HALVES.get(mode, torch.float32)
        if mode == "int8":
            used.quantize_weights("int8")
        assert batch.text is not None and batch.text_mask is not None, "the task has a caption"
        text, used = batch.text.to(dtype), used.to(dtype)
        parts = [slice(start, start + ROWS) for start in range(0, len(batch.ids), ROWS)]
        scores = [step_scores(used, Batch(group.layout, batch.ids[p], text[p], batch.text_mask[p])) for p in parts]
        nats, best = (torch.cat(made) for made in zip(*scores, strict=True))
        if mode == "fp32":
            reference, loss = best, float(nats.mean())
        rows.append(
            {
                "case": mode,
                "loss": f"{float(nats.mean()):.5f}",
                "change": f"{float(nats.mean()) - loss:+.5f}",
                "same best id %": 100 * float((best == reference).float().mean()),
            }
        )
    told = f"{args.scenes} held-out scenes, text to video with sound, {best.numel()} places"
    return rows, f"{args.lm or args.model}, {told}"


RUN = {"decode": decode, "loss": compare, "train": compare, "quality": quality}


def main(words: list[str] | None = None) -> int:
    """Run one kind of ``words``, or of the process' own command line, and print its table."""
    bench = Bench("lm", __doc__, RUN, {"loss": loss_case, "train": train_case})
    bench.add("--size", choices=tuple(PRESETS), default="tiny", help="decode, train")
    bench.add("--model", default="tiny", metavar="BUNDLE", help="quality: embedded name or folder")
    bench.add("--lm", type=Path, metavar="FOLDER", help="quality: language model in place of the bundle's")
    bench.add("--modes", nargs="+", metavar="MODE", help="default: all that run on a CPU")
    bench.add("--tokens", type=int, help="decode: of a run; 256 at tiny, else 32")
    bench.add("--batch", type=int, help="sequences; 2 for loss, else 1")
    bench.add("--side", type=int, default=16, help="train: visual tokens along a side of a picture")
    bench.add("--length", type=int, default=1351, help="loss: places of a sequence")
    bench.add("--dim", type=int, default=1024, help="loss")
    bench.add("--vocabulary", type=int, default=266_496, help="loss")
    bench.add("--scenes", type=int, default=16, help="quality")
    bench.add("--precision", choices=("fp32", "bf16"), default="fp32", help="loss, train: of the products")
    args = bench.parse(words, modes=MODES)
    args.batch = args.batch or (2 if args.kind == "loss" else 1)
    return bench.run(args)


if __name__ == "__main__":
    sys.exit(main())
