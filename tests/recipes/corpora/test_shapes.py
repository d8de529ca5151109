"""recipes/corpora/shapes.py: a pure function of (seed, split, index), with held-out triples kept out."""

import itertools

import pytest
import torch

from recipes.corpora.shapes import COLOURS, MOTIONS, SHAPES, ShapesCorpus, is_heldout, render_audio, render_video


def test_scene_depends_on_seed_split_and_index_only():
    assert ShapesCorpus(3).scene(7) == ShapesCorpus(3).scene(7)
    assert ShapesCorpus(3).scene(7) != ShapesCorpus(4).scene(7)
    assert ShapesCorpus(3).scene(7) != ShapesCorpus(3).scene(8)


def test_heldout_triples_are_never_drawn_for_training():
    train, heldout = ShapesCorpus(0, "train"), ShapesCorpus(0, "heldout")
    for index in range(400):
        scene = train.scene(index)
        assert not is_heldout(scene.colour, scene.shape, scene.motion)
        scene = heldout.scene(index)
        assert is_heldout(scene.colour, scene.shape, scene.motion)


def test_every_pair_of_attributes_is_seen_in_training():
    kept = [
        t for t in itertools.product(COLOURS, SHAPES, MOTIONS) if not is_heldout(*t) and t[1:] != ("circle", "spins")
    ]
    for first, second, names in ((0, 1, (COLOURS, SHAPES)), (0, 2, (COLOURS, MOTIONS)), (1, 2, (SHAPES, MOTIONS))):
        pairs = {(t[first], t[second]) for t in kept}
        wanted = set(itertools.product(*names)) - {("circle", "spins")}
        assert pairs == wanted


def test_captions_name_what_is_shown():
    corpus = ShapesCorpus(1, "all")
    for index in range(100):
        scene = corpus.scene(index)
        assert scene.colour in scene.caption and scene.shape in scene.caption
        phrases = [phrase for wording in MOTIONS[scene.motion] for phrase in wording]
        assert any(phrase in scene.caption for phrase in phrases)
        if scene.template != 5:
            assert scene.tone in scene.caption and scene.texture in scene.caption


@pytest.mark.parametrize("size", [32, 64, 128])
def test_video_has_the_asked_size_and_range(size):
    video = render_video(ShapesCorpus().scene(0), size=size, num_frames=5)
    assert video.shape == (3, 5, size, size) and video.dtype == torch.float32
    assert video.min() >= -1 and video.max() <= 1


def test_a_longer_clip_starts_with_the_shorter_one():
    scene = ShapesCorpus().scene(4)
    torch.testing.assert_close(render_video(scene, num_frames=17)[:, :5], render_video(scene, num_frames=5))


def test_sound_length_channels_and_silence():
    scene = ShapesCorpus().scene(2)
    assert render_audio(scene, num_samples=34000).shape == (1, 34000)
    stereo = render_audio(scene, channels=2, num_samples=16000)
    assert stereo.shape == (2, 16000)
    assert float(render_audio(scene).abs().max()) > 0.05
    with pytest.raises(ValueError, match="channels must be 1 or 2, got 3"):
        render_audio(scene, channels=3)


def test_stereo_follows_the_motion():
    corpus = ShapesCorpus(0, "all")
    scene = next(corpus.scene(i) for i in range(100) if corpus.scene(i).motion == "right")
    left, right = render_audio(scene, channels=2).square().unflatten(-1, (2, -1)).mean(-1)
    assert left[0] > left[1] * 0.9 and right[1] > right[0] and left[0] / right[0] > left[1] / right[1]


def test_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'test'; known: all, heldout, train"):
        ShapesCorpus(split="test")
