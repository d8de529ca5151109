"""What of a folder may train."""

from pathlib import Path

import pytest
import soundfile
import torch

from mmtok.media.audio import write_wav
from recipes.corpora.folder import MediaFolder, sound_pool

ROOT = Path(__file__).parents[3]


def listing(folder: Path, *rows: str) -> Path:
    file = folder / "list.csv"
    file.write_text("\n".join(["path,split,licence", *rows]) + "\n")
    return file


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    (tmp_path / "sounds").mkdir()
    for name in ("a_1", "a_2", "b_1", "b_2", "c_1"):
        write_wav(tmp_path / "sounds" / f"{name}.wav", 0.2 * torch.ones(1, 1600).cumsum(1).sin())
    return tmp_path


def names(files: tuple[Path, ...]) -> list[str]:
    return [file.stem for file in files]


def test_every_third_file_is_kept_out_without_a_listing(sounds: Path) -> None:
    media = MediaFolder.open(sounds)
    assert names(media.train_audio) == ["a_1", "a_2", "b_2", "c_1"] and names(media.measure_audio) == ["b_1"]


def test_a_pattern_takes_what_no_row_before_it_named(sounds: Path) -> None:
    rows = ("sounds/a_*.wav,measure,mine", "sounds/b_2.wav,measure,theirs", "sounds/*.wav,train,CC0")
    media = MediaFolder.open(sounds, listing(sounds, *rows))
    assert names(media.measure_audio) == ["a_1", "a_2", "b_2"] and names(media.train_audio) == ["b_1", "c_1"]
    assert media.licences["sounds/a_1.wav"] == "mine" and media.licences["sounds/c_1.wav"] == "CC0"


def test_endings_of_sound_in_any_case(tmp_path: Path) -> None:
    for name, kind in (("a.AIFF", "AIFF"), ("b.Flac", "FLAC"), ("c.aif", "AIFF"), ("d.mp3", "MP3")):
        soundfile.write(tmp_path / name, 0.5 * torch.ones(3200).numpy(), 16_000, format=kind)
    (tmp_path / "notes.txt").write_text("no sound")
    media = MediaFolder.open(tmp_path)
    assert [file.name for file in media.train_audio] == ["a.AIFF", "b.Flac", "d.mp3"]
    assert len(sound_pool(media.train_audio + media.measure_audio)) == 4


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("sounds/z_*.wav,train,CC0", "names sounds/z_.*which is not in"),
        ("sounds/z.wav,train,CC0", "names sounds/z.wav, which is not in"),
        ("sounds/a_1.wav,test,CC0", "split train or measure"),
    ],
)
def test_rows_that_fit_nothing_are_named(sounds: Path, row: str, told: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        MediaFolder.open(sounds, listing(sounds, row))


def test_sounds_are_brought_to_one_peak_and_cut(sounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = MediaFolder.open(sounds).train_audio
    write_wav(sounds / "silence.wav", torch.zeros(1, 1600))
    (sounds / "broken.wav").write_bytes(b"RIFF")
    pool = sound_pool((*files, sounds / "silence.wav", sounds / "broken.wav"), longest_s=0.05)
    assert len(pool) == len(files) == 4
    assert all(sound.shape == (800,) and abs(float(sound.abs().max()) - 0.9) < 1e-4 for sound in pool)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and "silence.wav: is silent" in told[0] and "broken.wav: " in told[1]
    assert sound_pool((sounds / "sounds" / "a_1.wav",))[0].shape == (1600,)


def test_the_listing_of_sounds_keeps_a_speaker_and_a_fold_out() -> None:
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the shared data are not there")
    media = MediaFolder.open(data, ROOT / "recipes" / "configs" / "soundstream_media.csv")
    heard = {file.stem.split("_")[1] for file in media.train_audio if "fsdd" in file.parts}
    unheard = {file.stem.split("_")[1] for file in media.measure_audio if "fsdd" in file.parts}
    assert heard == {"george", "jackson", "nicolas"} and unheard == {"yweweler"}
    assert {f.name[0] for f in media.measure_audio if "esc10" in f.parts} == {"4"}
    assert not set(media.train_audio) & set(media.measure_audio)
