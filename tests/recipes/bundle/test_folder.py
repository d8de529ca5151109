"""Opening and writing bundles: by name, by folder, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmtok.pretrained import known_models
from recipes.bundle.config import BundleConfig
from recipes.bundle.folder import BUNDLE_FILE, PARTS, open_bundle, write_bundle

CONFIG = BundleConfig(size=64, num_frames=17, fps=8.0, upscaled_size=128, top_k=50)


def test_written_bundle_reads_back(tmp_path: Path) -> None:
    write_bundle(tmp_path / "new", CONFIG, {"licence": "Apache-2.0"})
    opened = open_bundle(tmp_path / "new")
    assert opened.config == CONFIG and opened.card == {"licence": "Apache-2.0"}
    assert not any(opened.has(part) for part in PARTS)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [BUNDLE_FILE]  # no temporary file stays


def test_bundle_knows_its_parts(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert all(opened.has(part) for part in PARTS)
    assert opened.part("lm") == bundle / "lm"


def test_every_model_with_a_name_opens() -> None:
    for name in known_models():
        assert open_bundle(name).config.num_frames > 0


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(FileNotFoundError, match=r"unknown model 'tinny'.*known:"):
        open_bundle("tinny")


def test_folder_without_bundle_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no {BUNDLE_FILE}"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"format": 1, "config": {"size": 64}}', "damaged.*missing"),
        ('{"format": 1, "config": []}', "damaged"),
        ("\xff\xfe", "damaged"),
    ],
)
def test_damaged_bundle_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / BUNDLE_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sise": 64}, "unknown key sise; did you mean size"),
        ({"size": "large"}, "size must be"),
        ({"fps": 0.0}, "fps"),
        ({"size": 0}, "size"),
        ({"tasks": ["dream"]}, "unknown task 'dream'"),
        ({"more_num_frames": [17]}, "more_num_frames must be other lengths than 17"),
        ({"aspects": ["wide"]}, "unknown aspects .'wide'.; known: square, portrait"),
        ({"aspects": []}, "unknown aspects"),
        ({"sr2_steps": 0}, "sr2_steps must be at least 1, got 0"),
        ({"sr_schedule": "cubic"}, "unknown schedule 'cubic'; known: cosine"),
        ({"sr_draw_temperature": -1.0}, "temperatures must not be negative"),
        ({"flow": "raft"}, "unknown flow method 'raft'; known: dis, farneback"),
    ],
)
def test_wrong_values(tmp_path: Path, change: dict, message: str) -> None:
    write_bundle(tmp_path, CONFIG, {})
    stored = json.loads((tmp_path / BUNDLE_FILE).read_text())
    stored["config"].update(change)
    (tmp_path / BUNDLE_FILE).write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message):
        open_bundle(tmp_path)


def test_a_bundle_that_does_not_say_what_it_can_do_has_the_first_seven_tasks(tmp_path: Path) -> None:
    write_bundle(tmp_path, CONFIG, {})
    stored = json.loads((tmp_path / BUNDLE_FILE).read_text())
    newer = ("sr_draw_temperature", "sr_schedule", "sr2_steps", "sr2_text_scale", "sr2_low_scale")
    for name in ("tasks", "more_num_frames", "aspects", "sources", "flow", "depth", *newer):
        del stored["config"][name]
    (tmp_path / BUNDLE_FILE).write_text(json.dumps(stored))
    config = open_bundle(tmp_path).config
    assert config == CONFIG and len(config.tasks) == 7 and "inpaint" not in config.tasks
    assert config.picture_size("portrait") == (112, 64) and config.picture_size("square", upscaled=True) == (128, 128)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path, CONFIG, {})
    stored = json.loads((tmp_path / BUNDLE_FILE).read_text())
    stored["format"] = 2
    (tmp_path / BUNDLE_FILE).write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="format 2"):
        open_bundle(tmp_path)
