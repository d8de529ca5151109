"""A language model small enough to check by hand, and clips for it."""

from collections.abc import Callable

import pytest
import torch

from llm.batching import Batch
from llm.config import LMConfig
from llm.model import PrefixLM
from llm.tasks import Clip, find_task, task_content, task_layout

CLIP = Clip(grid=(3, 2, 3), audio_frames=6)
SLOTS = 4


def needs_given(name: str) -> int | None:
    return 1 if find_task(name).visual_in == "past" else None


@pytest.fixture
def clip() -> Clip:
    return CLIP


@pytest.fixture
def config() -> LMConfig:
    return LMConfig(
        dim=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        hidden_dim=48,
        visual_codes=50,
        audio_levels=2,
        audio_codes=11,
        text_dim=12,
        text_slots=SLOTS,
        max_grid=CLIP.grid,
        max_audio_frames=CLIP.audio_frames,
    )


@pytest.fixture
def model(config) -> PrefixLM:
    torch.manual_seed(0)
    model = PrefixLM(config).eval()
    for weight in model.parameters():  # far from the small initial values, so that differences show
        torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture
def make(config) -> Callable[..., Batch]:
    """A batch of random clips for a task."""

    def build(name: str, batch_size: int = 2, seed: int = 0, given: int | None = None, order: str = "level") -> Batch:
        draw = torch.Generator().manual_seed(seed)
        given = given or needs_given(name)
        layout = task_layout(name, config.vocabulary, CLIP, text_slots=SLOTS, given=given, audio_order=order)
        visual, condition = torch.randint(50, (2, batch_size, 1, *CLIP.grid), generator=draw)
        audio = torch.randint(11, (batch_size, 2, CLIP.audio_frames), generator=draw)
        content = task_content(name, CLIP, visual=visual, audio=audio, condition=condition, given=given)
        ids, _ = layout.fill(content, batch_size)
        if not layout.text_slots:
            return Batch(layout, ids)
        lengths = torch.arange(batch_size) % SLOTS + 1
        mask = torch.arange(SLOTS)[None] < lengths[:, None]
        return Batch(layout, ids, torch.randn(batch_size, SLOTS, 12, generator=draw), mask)

    return build
