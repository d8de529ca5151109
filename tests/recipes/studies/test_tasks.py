"""The tasks' study runs through, resumes, shares its work and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.studies.tasks import StudyConfig, _by_task, gather, main, table

WORDS = ["scenes=1", "tokens.scenes=12", "lm.steps=2", "lm.tokens_per_step=1", "lm.validation_rows=2"]
WORDS += ["tokens.size=32", "lm.text_slots=16"]
WORDS += ["variants={sound: [video_to_audio], paint: [outpaint], all: [video_to_audio, outpaint, text_to_video]}"]


def test_variants_are_trained_on_their_tasks_and_nothing_is_repeated(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--model", str(bundle), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--variant", "paint"]) == 0
    first = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert set(first) == {"outpaint gain_db", "outpaint loss"} and set(first["outpaint loss"]) == {"paint"}
    before = (tmp_path / "paint" / "result.json").stat().st_mtime_ns
    assert main(words) == 0 and (tmp_path / "paint" / "result.json").stat().st_mtime_ns == before
    figures = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert set(figures["video_to_audio pitch"]) == {"sound", "all"}
    assert set(figures["outpaint gain_db"]) == {"paint", "all"} and figures["outpaint loss"]["all"] > 0
    assert {"text_to_video shape", "text_to_video loss"} <= set(figures)
    trained = json.loads((tmp_path / "paint" / "lm" / "config.json").read_text())["task_weights"]
    assert set(trained) == {"outpaint"}
    assert "| outpaint | gain db |" in capsys.readouterr().out
    assert main([*words, "lm.steps=3"]) == 2
    assert "other numbers" in capsys.readouterr().err


def test_table_puts_the_single_task_beside_all(tmp_path: Path) -> None:
    tasks = {"sound": ("video_to_audio",), "all": ("video_to_audio", "text_to_video")}
    config = StudyConfig(variants=tasks)
    for variant, figures in {"sound": {"video_to_audio pitch": 80.0}, "all": {"video_to_audio pitch": 91.5}}.items():
        (tmp_path / variant).mkdir()
        (tmp_path / variant / "result.json").write_text(json.dumps({"figures": figures}))
    assert "| video_to_audio | pitch | 80 | 91.5 |" in table(gather(config, tmp_path))


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["variants={text: [text_to_video]}"], "must name 'all'"),
        (["variants={all: [juggle]}"], "juggle"),
        (["variants={all: [continue_av]}"], "no weight"),
        (["scenes=0"], "scenes must be positive"),
        (["--variant", "none"], "unknown variants none"),
        (["--model", "no_such_model"], "no_such_model"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and fault in told
    assert not (tmp_path / "out").exists()


def test_masks_are_averaged_and_a_captioned_row_keeps_its_own_figure() -> None:
    rows = {
        "video_to_audio": {"pitch": 60.0},
        "video_to_audio captioned": {"pitch": 90.0},
        "inpaint central": {"psnr_db": 12.0, "fill_psnr_db": 10.0},
        "inpaint dynamic": {"psnr_db": 18.0, "fill_psnr_db": 12.0},
    }
    figures = _by_task(rows)
    assert figures == {"video_to_audio pitch": 60, "video_to_audio pitch_captioned": 90, "inpaint gain_db": 4}
    lines = table({"figures": {name: {"all": value} for name, value in figures.items()}})
    assert "| video_to_audio | pitch captioned | – | 90 |" in lines
