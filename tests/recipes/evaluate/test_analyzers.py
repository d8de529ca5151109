"""recipes/evaluate/analyzers.py: at least 99 % on ground truth, and chance on shuffled captions."""

import pytest
import torch

from recipes.corpora.shapes import COLOURS, PITCHES_HZ, ShapesCorpus, render_audio, render_video
from recipes.evaluate.analyzers import read_pitch, read_video

SCENES = [ShapesCorpus(11, "all").scene(i) for i in range(120)]


@pytest.fixture(scope="module")
def readings():
    return [(read_video(render_video(s, size=64)), read_pitch(render_audio(s), 16000)) for s in SCENES]


def _scores(readings, scenes):
    pairs = list(zip(readings, scenes, strict=True))
    return {
        "colour": sum(r.colour == s.colour for (r, _), s in pairs) / len(pairs),
        "shape": sum(r.shape == s.shape for (r, _), s in pairs) / len(pairs),
        "motion": sum(r.motion == s.motion for (r, _), s in pairs) / len(pairs),
        "pitch": sum(p == s.shape for (_, p), s in pairs) / len(pairs),
    }


def test_ground_truth_is_read_back(readings):
    scores = _scores(readings, SCENES)
    assert min(scores.values()) >= 0.99, scores


def test_shuffled_captions_score_near_chance(readings):
    order = torch.randperm(len(SCENES), generator=torch.Generator().manual_seed(0)).tolist()
    scores = _scores(readings, [SCENES[i] for i in order])
    assert max(scores.values()) < 0.45, scores
    assert scores["colour"] < 3 / len(COLOURS) and scores["pitch"] < 2.5 / len(PITCHES_HZ)


def test_large_pictures_are_read_too():
    for scene in SCENES[:12]:
        reading = read_video(render_video(scene, size=128))
        assert (reading.colour, reading.shape, reading.motion) == (scene.colour, scene.shape, scene.motion)


def test_noise_and_blur_of_a_tokenizer_do_not_confuse():
    noise = torch.Generator().manual_seed(1)
    right = 0
    for scene in SCENES[:40]:
        video = render_video(scene, size=64)
        video = torch.nn.functional.avg_pool3d(video, (1, 3, 3), stride=1, padding=(0, 1, 1))
        video = (video + 0.1 * torch.randn(video.shape, generator=noise)).clamp(-1, 1)
        reading = read_video(video)
        right += (reading.colour, reading.shape, reading.motion) == (scene.colour, scene.shape, scene.motion)
    assert right >= 37, right


def test_a_still_picture_is_still():
    scene = SCENES[0]
    frame = render_video(scene, size=64)[:, :1]
    assert read_video(frame.expand(-1, 17, -1, -1)).motion == "still"
    assert read_video(frame).shape == scene.shape


def test_grey_and_silence_are_not_read():
    assert read_video(torch.zeros(3, 17, 64, 64)).colour is None
    assert read_pitch(torch.zeros(1, 34000), 16000) is None
