"""``cinepoet train superres``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_media, add_training, check_media
from recipes.terminal.report import join_training, note, tell_config

SUMMARY = "super-resolution on films, on made-up scenes, or on both"
EXAMPLES = """\
  cinepoet train superres --media my_films --out runs/superres                  # captions: NAME.txt beside NAME.mp4
  cinepoet train superres --media my_films --init tiny scenes_share=0.3 "sizes=[[128,128],[224,128]]" optim.lr=5e-4
  torchrun --nproc-per-node 8 -m recipes.cli train superres --config recipes/configs/superres_1b.yaml --media films \
    --tokenizer runs/magvit2_base/visual/model --text t5_vectors --out runs/sr1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_training(parser, out="runs/superres")
    add_media(parser, "films of any size (without: corpus shapes)")
    parser.add_argument("--captions", type=Path, metavar="F", help="CSV or JSONL with path and caption of films")
    parser.add_argument(
        "--tokenizer", default="tiny", metavar="MODEL", help="that of pictures, alone or of a model (default: tiny)"
    )
    parser.add_argument("--text", metavar="MODEL", help="text encoder, or a folder of cinepoet embed (default: tiny's)")
    parser.add_argument("--init", metavar="MODEL", help="weights or a model that go on, of any grid")


def run(args: argparse.Namespace) -> int:
    """Train super-resolution on the films of a folder, on made-up scenes, or on both."""
    from dataclasses import replace

    import mmtok
    from mmtok.loading import part_folder
    from recipes.loop.tracking import choose_tracker
    from recipes.runtime.config import load_config
    from recipes.runtime.records import same_data
    from recipes.tokens.caption_vectors import caption_lookup
    from recipes.tokens.identity import weights_hash
    from recipes.tokens.superres_pairs import pair_grid
    from recipes.train.superres import PixelTrainConfig, start_from, superres_config, train_superres
    from superres.model import SuperResTransformer

    check_media(args)
    choose_tracker(args.track)
    if args.captions is not None and args.media is None:
        raise ValueError("--captions goes with the films of --media")
    config: Any = load_config(PixelTrainConfig, args.config or CONFIGS / "superres_tiny.yaml", args.changes)
    if args.media is None:
        config = replace(config, scenes_share=1.0)
    elif config.scenes_share == 1.0:
        raise ValueError("scenes_share is 1.0, which leaves nothing for the films of --media")

    # What can be refused is refused before anything is read or written.
    tokenizer: Any = mmtok.load(args.tokenizer, part="superres_visual")
    config = replace(config, visual_codes=tokenizer.codebook_size)
    grids = [pair_grid(tokenizer, config.num_frames, size) for size in config.sizes]
    wanted = superres_config(config, grids, None)
    start = None if args.init is None else SuperResTransformer.from_pretrained(part_folder(args.init, "superres"))
    if start is not None:
        start_from(start, wanted, text_dim=None)
    compute, ranks = join_training(args)
    tokenizer.to(compute.device)
    groups, told = _groups(config, args, tokenizer, ranks)

    texts = [text for group in groups for text in group.captions()]
    captions, text_dim = None, None
    if texts:
        text = args.text or part_folder("tiny", "text")
        captions, text_dim, cut = caption_lookup(text, texts, config.text_slots, compute.device)
        if cut and ranks.is_main:
            note(f"{cut} of {len(texts)} captions are longer than {config.text_slots} tokens; their ends are left out")
    elif args.text is not None:
        raise ValueError("--text embeds captions, and no film has one (NAME.txt beside it, or --captions)")
    elif ranks.is_main:
        note("no film has a caption (NAME.txt beside it, or --captions): the model learns without text")
    out = args.out
    tell_config(config, out, ranks)
    told += [f"tokenizer {weights_hash(tokenizer)}", f"text {args.text or 'tiny' if texts else 'none'}"]
    told += [f"init {args.init}"] if args.init is not None else []
    same_data(out, told, ranks)
    if ranks.is_main:
        for group in groups:
            kept = f"{group.num_held_out} held out" if group.num_held_out else "none held out"
            print(f"{group.name}: {group.num_train} clips of {group.grid} tokens, {kept}")
        if not any(group.num_held_out for group in groups):
            note("no film is kept out, so nothing is validated; every third of a folder is, or what --media-list says")
    model = train_superres(
        config,
        out,
        groups=groups,
        captions=captions,
        text_dim=text_dim,
        compute=compute,
        start=start,
        ranks=ranks,
    )
    if ranks.is_main:
        print(f"{model}: ready; its curves are in {out / 'curves.png'}")
    return 0


def _groups(config: Any, args: argparse.Namespace, tokenizer: Any, ranks: Any) -> tuple[list[Any], list[str]]:
    """Groups of clips, and lines that name them."""
    from recipes.corpora.film_clips import film_clips
    from recipes.corpora.folder import MediaFolder
    from recipes.tokens.superres_pairs import film_groups, scene_groups

    groups: list[Any] = []
    told: list[str] = []
    shared = {name: getattr(config, name) for name in ("num_frames", "validation_rows", "kept_clips")}
    shared["tokenizer"] = tokenizer
    if args.media is not None:
        media = MediaFolder.open(args.media, args.media_list)
        clips = film_clips(
            media,
            sizes=config.sizes,
            num_frames=config.num_frames,
            fps=tokenizer.fps,
            clips_per_film=config.clips_per_film,
            views=config.views,
            seed=config.seed,
            captions=args.captions,
            tell=print if ranks.is_main else lambda line: None,
            progress=ranks.is_main,
        )
        groups += film_groups(clips, weight=1.0 - config.scenes_share, **shared)
        for found in clips.values():
            told += [
                f"{clip.path.relative_to(media.root)} {clip.start_s:g} {clip.caption or ''}".rstrip()
                for clip in found.train
            ]
    if config.scenes_share > 0:
        groups += scene_groups(config.sizes, seed=0, scenes=config.scenes, weight=config.scenes_share, **shared)
        told.append("corpus seed 0")
    return groups, told
