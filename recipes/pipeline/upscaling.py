"""The upscaler of a bundle: its stages of super-resolution, the tokenizer that they speak, and the forms it knows."""

from __future__ import annotations

from functools import partial

from mmtok.pretrained import params_from_config, read_config
from recipes.bundle.config import ASPECTS, STAGES
from recipes.bundle.parts import Parts
from superres.config import SuperResConfig
from superres.film import FilmUpscaler
from superres.model import FAMILY
from superres.passes import Stage


def film_upscaler(parts: Parts) -> FilmUpscaler:
    """What sharpens the films of a bundle; of its models only the tokenizer is loaded yet."""
    bundle, config = parts.bundle, parts.config
    names = [name for name in STAGES if bundle.has(name)]
    if STAGES[0] not in names:
        raise ValueError(f"the model {bundle.folder} has no super-resolution part; ask for no upscaling")
    stages, tokenizer = {}, parts.sharp_visual
    for name in names:
        sizes = params_from_config(SuperResConfig, read_config(bundle.part(name), FAMILY)["params"])
        if sizes.codebook_size != tokenizer.codebook_size:
            raise ValueError(
                f"{name} of {bundle.folder} speaks {sizes.codebook_size} codes and the tokenizer under it "
                f"{tokenizer.codebook_size}; every stage must be trained on that tokenizer"
            )
        stages[name] = Stage(sizes, config.decoding(name), partial(getattr, parts, name))
    return FilmUpscaler(
        stages,
        tokenizer,
        base=config.size,
        size=config.upscaled_size,
        num_frames=config.num_frames,
        embed=parts.embed,
        forms={name: ratio for name, (_, ratio) in ASPECTS.items()},
        device=parts.compute.device,
        autocast=parts.compute.autocast,
        timed=parts.timed,
    )
