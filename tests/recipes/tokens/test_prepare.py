"""recipes/tokens/prepare.py and its command: rows hold what the tokenizers say of the films, and no stop or bad file hurts."""

import importlib
import json
import shutil

import pytest
import torch

import mmtok
from mmtok.conditions.commit_masks import make_condition
from mmtok.media.audio import read_audio
from mmtok.media.image import read_image, write_png
from mmtok.media.resize import half_size
from mmtok.media.video import read_video, write_film
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.tokens.check import validate
from recipes.tokens.reader import TokenShards


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Five seconds with sound, a silent film, a picture, a short film, something broken; all but the last with a text."""
    root = tmp_path_factory.mktemp("films")
    corpus = ShapesCorpus(0, "all")
    for number, (name, frames) in enumerate({"long": 40, "mute": 17, "short": 9}.items()):
        sound = render_audio(corpus.scene(number), num_samples=2000 * frames) if name == "long" else None
        write_film(root / f"{name}.mp4", render_video(corpus.scene(number), size=48, num_frames=frames), audio=sound)
    write_png(root / "still.png", render_video(corpus.scene(3), size=48, num_frames=1)[:, 0])
    (root / "broken.mp4").write_bytes(b"no film at all, but a long enough text")
    rows = ["path,caption,licence"]
    rows += [f"{p.name},caption of {p.stem},CC0-1.0" for p in sorted(root.glob("*.*")) if p.suffix in (".mp4", ".png")]
    (root / "captions.csv").write_text("\n".join(rows))
    return root


@pytest.fixture
def prepare(bundle, cinepoet, films, monkeypatch, tmp_path):
    """Run the command on the films with the random model."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def run(*words, source=films / "captions.csv", out="tokens"):
        return cinepoet("prepare", source, "--tokenizer", bundle, "--device", "cpu", "--out", tmp_path / out, *words)

    return run


def rows_of(folder):
    shards = TokenShards.open(folder)
    return shards, {shards.facts(row)["key"]: row for row in range(len(shards))}


def test_rows_are_what_the_tokenizers_say(prepare, films, bundle, tmp_path):
    code, shown, notes = prepare("--conditions", "inpaint_central,outpaint_dynamic", "--shard", 2)
    assert code == 0, notes
    assert "4 clips of 3 films in 2 shards" in shown and "2 with sound, 4 with captions, 2 left out" in shown
    assert "broken.mp4: is not a media file" in notes and "short.mp4: is too short" in notes
    shards, keys = rows_of(tmp_path / "tokens")
    assert validate(tmp_path / "tokens") == []
    visual, audio = mmtok.load(bundle / "visual"), mmtok.load(bundle / "audio")
    heard = 0
    for key, row in keys.items():
        facts, codes = shards.facts(row), shards.read([row])
        assert facts["caption"] == f"caption of {facts['source'].split('.')[0]}" and facts["licence"] == "CC0-1.0"
        path = films / facts["source"]
        if path.suffix == ".png":
            clip = read_image(path, 32)[None, :, None]
            assert codes.visual.shape == (1, 1, 1, 4, 4) and codes.audio is None and codes.conditions == {}
        else:
            clip = read_video(path, num_frames=17, size=32, start_s=facts["start_s"]).frames[None]
            masked = make_condition(clip, "inpaint_central", stride=(4, 8, 8)).video
            assert torch.equal(codes.conditions["inpaint_central"], visual.encode(masked)), key
        assert torch.equal(codes.visual, visual.encode(clip)), key
        if codes.audio is not None:
            sound = read_audio(path, num_samples=34000, start_s=facts["start_s"]).samples[None]
            assert torch.equal(codes.audio, audio.encode(sound)), key
            heard += 1
    assert heard == 2  # two windows of the long film, none of the mute one
    quarantine = [json.loads(line) for line in (tmp_path / "tokens" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(entry["source"] for entry in quarantine) == ["broken.mp4", "short.mp4"]
    shards.info.require(visual, audio)


def contents(folder):
    return {p.name: p.read_bytes() for p in (folder / "shards").iterdir()}


def test_again_after_a_stop_and_in_parts_it_comes_out_the_same(prepare, tmp_path, monkeypatch):
    assert prepare("--shard", 1)[0] == 0
    whole = contents(tmp_path / "tokens")
    assert len(whole) == 6
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "tokens" / "shards").iterdir()}
    code, shown, _ = prepare("--shard", 1)
    assert code == 0 and "nothing was left to do" in shown
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "tokens" / "shards").iterdir()} == times

    (tmp_path / "tokens" / "shards" / "00001.json").unlink()  # killed between the rows and their record
    (tmp_path / "tokens" / "shards" / "00002.parquet.7.partial").write_bytes(b"PAR1")
    assert prepare("--shard", 1)[0] == 0
    assert contents(tmp_path / "tokens") == whole

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, shown, _ = prepare("--shard", 1, out="parts")  # as torchrun would start the second of two
    assert code == 0 and "1 of 3 shards" in shown
    with pytest.raises(ValueError, match=r"is not finished \(1 of 3 shards\)"):
        TokenShards.open(tmp_path / "parts")
    assert prepare("--shard", 1, "--part", "1/2", out="parts")[0] == 0
    assert contents(tmp_path / "parts") == whole
    assert TokenShards.open(tmp_path / "parts").fingerprint == TokenShards.open(tmp_path / "tokens").fingerprint


def test_another_work_in_the_same_folder_is_refused(prepare, tmp_path):
    assert prepare("--plan")[0] == 0
    assert not (tmp_path / "tokens" / "shards").exists()
    code, _, told = prepare("--seed", 1)
    assert code == 2 and "holds other token shards, made with another seed (0 and now 1)" in told
    code, _, told = prepare("--audio", "none")
    assert code == 2 and "sound (kept before)" in told


def test_scenes_with_everything(prepare, bundle, tmp_path):
    code, shown, told = prepare(
        "--scenes", 3, "--validation", 0.4, "--conditions", "structure", "--num-frames", "5,1", source="shapes"
    )  # fmt: skip
    assert code == 0, told
    assert "8 clips of 4 films in 1 shards (6 train, 2 validation), 4 with sound" in shown
    shards, keys = rows_of(tmp_path / "tokens")
    row = keys["shapes/0/train/2@0.000s+5x32x32"]
    codes = shards.read([row])
    visual = mmtok.load(bundle / "visual")
    clip = render_video(ShapesCorpus(0, "train").scene(2), size=64, num_frames=5)[None]
    assert torch.equal(codes.visual, visual.encode(half_size(clip)))
    assert codes.captions == [ShapesCorpus(0, "train").scene(2).caption]
    assert codes.conditions["structure"].shape == (1, 1, 2, 4, 4)
    assert shards.info.conditions["structure"] == {"flow": "dis", "depth": "saturation"}
    assert {b.grid for b in shards.buckets} == {(2, 4, 4), (1, 4, 4)} and shards.collections() == ["shapes"]


def test_the_same_film_in_both_splits_is_refused(prepare, films, tmp_path):
    root = tmp_path / "leak"
    root.mkdir()
    shutil.copy(films / "mute.mp4", root / "a.mp4")
    shutil.copy(films / "mute.mp4", root / "b.mp4")
    (root / "l.csv").write_text("path,caption,split\na.mp4,x,train\nb.mp4,y,validation\n")
    code, _, told = prepare(source=root / "l.csv")
    assert code == 2 and "the same film is in both splits: a.mp4 (train) and b.mp4 (validation)" in told
    assert prepare("--captions", root / "l.csv", "--part", "3/2", source=root)[2].count("--part takes I/N") == 1


def test_aspects_and_dull_windows(prepare, films, tmp_path):
    root = tmp_path / "more"
    root.mkdir()
    write_film(root / "still.mp4", torch.zeros(3, 17, 40, 24))
    shutil.copy(films / "mute.mp4", root / "mute.mp4")
    code, _, told = prepare("--aspect", "auto", "--skip-dull", source=root)
    assert code == 0 and "no film has a caption" in told and "still.mp4: left out: nothing moves" in told
    shards, keys = rows_of(tmp_path / "tokens")
    assert list(keys) == ["mute.mp4@0.000s+17x32x32"] and shards.read([0]).captions == [None]
    code, _, told = prepare("--aspect", "auto,square", source=root, out="both")
    assert code == 0, told
    assert sorted(rows_of(tmp_path / "both")[1]) == [
        "mute.mp4@0.000s+17x32x32",
        "still.mp4@0.000s+17x32x32",
        "still.mp4@0.000s+17x56x32",
    ]


def test_storage_that_fails_stops_the_work_instead_of_filling_the_quarantine(prepare, films, tmp_path):
    root = tmp_path / "gone"
    root.mkdir()
    shutil.copy(films / "mute.mp4", root)
    assert prepare("--plan", source=root)[0] == 0
    (root / "mute.mp4").rename(tmp_path / "aside.mp4")
    code, _, told = prepare(source=root)
    assert code == 2 and "mute.mp4 is gone since the work was planned" in told
    (root / "mute.mp4").write_bytes(b"other")
    assert "mute.mp4 was changed since the work was planned" in prepare(source=root)[2]
    (tmp_path / "aside.mp4").rename(root / "mute.mp4")
    assert prepare(source=root)[0] == 0 and len(rows_of(tmp_path / "tokens")[1]) == 1


def test_when_nothing_is_left_the_reason_is_told(prepare, films, tmp_path):
    root = tmp_path / "bad"
    root.mkdir()
    shutil.copy(films / "broken.mp4", root)
    code, _, told = prepare(source=root)
    assert code == 2 and "no clip can be made of" in told and "broken.mp4: is not a media file" in told
    whole = (films / "mute.mp4").read_bytes()
    (root / "broken.mp4").unlink()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 3])  # the index is in front, the pictures are gone
    code, _, told = prepare(source=root, out="cut")
    assert code == 2 and "cut.mp4" in told


def test_what_is_missing_is_told_before_the_work(prepare, tmp_path, monkeypatch):
    known = importlib.import_module

    def without(name, *rest):
        if name == "cv2":
            raise ImportError("no cv2")
        return known(name, *rest)

    with monkeypatch.context() as here:
        here.setattr("mmtok.conditions.structure.importlib.import_module", without)
        code, _, told = prepare("--conditions", "all", "--depth", "saturation")
    assert code == 2 and 'optical flow needs OpenCV: pip install "cinepoet[structure]"' in told
    code, _, told = prepare("--conditions", "structure", "--depth", str(tmp_path / "nowhere"))
    assert code == 2 and "no Depth Anything at" in told
    assert "--flow goes with --conditions structure" in prepare("--flow", "farneback")[2]
    assert "num_frames (16) must be 1 + a multiple of 4" in prepare("--num-frames", 16)[2]
    assert not (tmp_path / "tokens" / "manifest.jsonl").exists()


def test_the_check_names_the_bad_row(prepare, cinepoet, tmp_path):
    import pyarrow
    import pyarrow.parquet

    assert prepare("--limit", 2)[0] == 0
    code, shown, _ = cinepoet("prepare", "--check", tmp_path / "tokens")
    assert code == 0 and "rows in 1 shards, all as they should be" in shown
    file = tmp_path / "tokens" / "shards" / "00000.parquet"
    table = pyarrow.parquet.read_table(file)
    values = table.column("visual").to_pylist()
    values[1][0] = 64
    place = table.column_names.index("visual")
    bad = table.set_column(place, "visual", pyarrow.array(values, table.schema.field("visual").type))
    pyarrow.parquet.write_table(bad, file)
    code, shown, told = cinepoet("prepare", "--check", tmp_path / "tokens")
    assert code == 2 and "shard 0, row 1, key 'long.mp4@" in told and "visual codes must lie in [0, 64)" in told
    assert "give SOURCE to prepare, or --check" in cinepoet("prepare")[2]
    code, _, told = cinepoet("prepare", "--check", tmp_path / "tokens", "--split-by", "folder")
    assert code == 2 and "leave --split-by out" in told
