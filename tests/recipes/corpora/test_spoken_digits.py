"""Who may hear what: no recording is on both sides, and cuts give back what was put in."""

from pathlib import Path

import pytest
import torch

from mmtok.media.audio import write_wav
from recipes.corpora.spoken_digits import SPLITS, Recording, digit_strings, open_digits, split_digits


def _set(takes: int = 6) -> list[Recording]:
    return [
        Recording(Path(f"{digit}_{speaker}_{take}.wav"), digit, speaker, take)
        for digit in range(10)
        for speaker in ("ann", "bob", "cy")
        for take in range(takes)
    ]


@pytest.mark.parametrize("kind", SPLITS)
def test_nobody_is_tested_on_what_they_heard(kind: str) -> None:
    split = split_digits(_set(), held_out=["bob"], test_takes=2, kind=kind)
    assert {r.speaker for r in split.codec} == {"ann", "cy"} and len(split.codec) == 120
    assert {(r.speaker, r.take) for r in split.test} == {("bob", 0), ("bob", 1)} and len(split.test) == 20
    assert not set(split.test) & set(split.classifier)
    voices = {r.speaker for r in split.classifier}
    assert voices == ({"ann", "bob", "cy"} if kind == "takes" else {"ann", "cy"})
    if kind == "takes":  # no take that is tested, of any speaker
        assert min(r.take for r in split.classifier) == 2


def test_splits_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="unknown speaker dora; known: ann, bob, cy"):
        split_digits(_set(), held_out=["dora"])
    with pytest.raises(ValueError, match="none given"):
        split_digits(_set(), held_out=[])
    with pytest.raises(ValueError, match="unknown split 'all'"):
        split_digits(_set(), held_out=["ann"], kind="all")
    with pytest.raises(ValueError, match="no recordings are left for the classifier"):
        split_digits(_set(), held_out=["ann"], test_takes=6)
    with pytest.raises(ValueError, match="no recordings are left for the codec"):
        split_digits(_set(), held_out=["ann", "bob", "cy"], test_takes=2)


def test_strings_are_cut_where_they_were_joined(tmp_path: Path) -> None:
    for digit, length in ((3, 800), (1, 1600)):
        for take in (0, 1):
            write_wav(tmp_path / f"{digit}_ann_{take}.wav", torch.full((length,), digit / 10), 8000)
    (tmp_path / "notes.txt").write_text("not a digit")
    recordings = open_digits(tmp_path)
    assert [(r.digit, r.take) for r in recordings] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    strings = digit_strings(recordings, 8000)
    assert [s.name for s in strings] == ["ann 0", "ann 1"]
    assert len(strings[0].sound) == 3 * 800 + 1600 + 800 and float(strings[0].sound[:800].abs().max()) == 0
    (one, first), (three, second) = strings[0].cut(strings[0].sound, 8000)
    assert (one, three) == (1, 3) and (len(first), len(second)) == (1600, 800)
    assert first.sub(0.1).abs().max() < 1e-4 and second.sub(0.3).abs().max() < 1e-4
    doubled = strings[0].sound.repeat_interleave(2)
    assert torch.equal(strings[0].cut(doubled, 16_000)[1][1], second.repeat_interleave(2))


def test_folders_without_digits(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_digits(tmp_path / "no")
    with pytest.raises(ValueError, match=r"holds no files named DIGIT_SPEAKER_TAKE\.wav"):
        open_digits(tmp_path)


def test_the_real_set(shared: Path) -> None:
    recordings = open_digits(shared / "data" / "fsdd")
    assert len(recordings) == 2000 and len({r.speaker for r in recordings}) == 4
    (string,) = digit_strings([r for r in recordings if (r.speaker, r.take) == ("jackson", 3)], 16_000)
    assert [digit for digit, _, _ in string.places] == list(range(10)) and 4 < len(string.sound) / 16_000 < 8
