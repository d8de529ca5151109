"""Captions in many wordings, and plain English lines: what the text encoder is trained on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from recipes.corpora.shapes import MOTIONS, ShapesCorpus

Captions = Callable[[torch.Generator, int], list[str]]
# Other words for the corpus' words; the key is what the caption says.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby"),
    "yellow": ("golden", "lemon", "amber"),
    "green": ("emerald", "lime", "grass green"),
    "cyan": ("turquoise", "aqua", "teal", "light blue"),
    "blue": ("navy", "azure", "deep blue"),
    "purple": ("violet", "magenta", "lilac"),
    "circle": ("ball", "disc", "disk", "dot", "round shape", "sphere"),
    "square": ("box", "block", "cube", "quadrilateral"),
    "triangle": ("pyramid", "wedge", "three sided shape"),
    "star": ("pentagram", "five pointed star", "asterisk"),
    "cross": ("plus", "plus sign", "x shape"),
    "moves left": ("goes left", "drifts left", "travels to the left", "heads left", "runs leftwards"),
    "moving left": ("going left", "drifting left", "travelling to the left", "heading left"),
    "moves right": ("goes right", "drifts right", "travels to the right", "heads right", "runs rightwards"),
    "moving right": ("going right", "drifting right", "travelling to the right", "heading right"),
    "moves up": ("goes up", "ascends", "climbs", "floats up", "lifts", "flies up"),
    "moving up": ("going up", "ascending", "climbing", "floating up", "flying up"),
    "moves down": ("goes down", "descends", "falls", "drops", "falls down"),
    "moving down": ("going down", "descending", "falling", "dropping", "falling down"),
    "bounces": ("jumps", "hops", "leaps", "jumps up and down"),
    "bouncing": ("jumping", "hopping", "leaping", "jumping up and down"),
    "grows": ("expands", "swells", "enlarges", "becomes larger", "gets larger"),
    "growing": ("expanding", "swelling", "enlarging", "becoming larger", "getting larger"),
    "shrinks": ("contracts", "becomes smaller", "gets tiny"),
    "shrinking": ("contracting", "becoming smaller", "getting tiny"),
    "spins": ("rotates", "turns", "twirls", "whirls", "revolves"),
    "spinning": ("rotating", "turning", "twirling", "whirling", "revolving"),
    "dark": ("black", "dim", "dusky", "night"),
    "light": ("bright", "white", "pale"),
    "plain": ("empty", "smooth", "blank"),
    "striped": ("lined", "stripy", "with stripes"),
    "dotted": ("spotted", "speckled", "with dots"),
    "background": ("backdrop", "wall", "ground", "surface"),
    "a video of": ("a clip of", "a film of", "footage of", "a movie of", "show me", "please draw"),
}
_RARE_WORDING = {rare: usual for usual, rare in (pair for m in MOTIONS.values() for pair in zip(*m, strict=True))}
_OPENINGS = ("a video of", "a clip of", "show me", "please draw", "i want to see", "can you make")
# Plain English, so that prompts about other things are split into words rather than letters.
_NOUNS = (
    "man woman child boy girl baby person people family friend dog cat horse bird fish cow sheep bear lion tiger "
    "elephant monkey mouse rabbit duck chicken butterfly bee dragon dinosaur robot astronaut car bus train truck "
    "bicycle boat ship plane rocket house street road city town bridge garden park forest tree flower grass river "
    "lake sea ocean beach island mountain hill desert field sky cloud rain snow storm wind fire smoke sun moon "
    "stars planet space earth water ice glass stone wood metal table chair door window room kitchen bed lamp clock "
    "phone computer camera screen book picture paper toy hat coat shoe hand face eye head hair mouth food bread "
    "apple orange banana cake coffee tea music song guitar piano drum bell voice morning evening night day summer "
    "winter spring autumn light shadow colour shape line pattern ring heart arrow hexagon rectangle oval diamond "
    "bubble balloon coin wheel machine sound noise video film scene painting drawing cartoon"
)
_VERBS = (
    "walks runs jumps dances sings plays sits stands sleeps eats drinks reads writes talks laughs smiles waves "
    "looks watches flies swims rides drives climbs falls rolls slides turns opens closes holds throws catches kicks "
    "pushes pulls lifts cooks paints builds works waits moves stops starts shines burns melts breaks grows blooms "
    "rings floats swings shakes glows"
)
_ADJECTIVES = (
    "big small large little tiny huge tall short long old young new happy sad fast slow quick quiet loud bright "
    "dark soft hard warm cold hot wet dry clean dirty beautiful strange funny wild calm empty full deep high low "
    "round flat sharp shiny golden silver white black grey brown pink orange red green blue yellow purple wooden "
    "colourful realistic detailed cinematic"
)
_PLACES = (
    "in the park;on the street;near the sea;under a tree;over the mountain;across the river;through the forest;"
    "into the water;at night;in the morning;at sunset;in the snow;in the rain;on the table;inside a house;"
    "outside the window;behind the car;in front of the camera;from left to right;around the corner;"
    "between two hills;along the beach;up the stairs;with a friend;in slow motion;in high quality;"
    "while the music plays;towards the viewer;away from the light;in the middle of the screen"
)
_LINES = (
    "{a} {n} {v} {p}",
    "the {n} {v} and the {a} {m} {w}",
    "a {a} {n} that {v} {p}",
    "{a} and {b} {n} {p}",
    "a video of a {n} and a {m}, {p}",
    "there is a {n} with a {a} {m}",
    "two {a} {n}s and three {m}s {p}",
    "this is a {n}, it {v} {p} because it is {a}",
    "close up of a {a} {n}, {b} style, {p}",
    "when the {n} {v}, the {m} {w} like a {a} {n}",
)


@dataclass(frozen=True)
class LabelledCaptions:
    """Captions with what they say, for the probe.

    Attributes:
        captions: the lines.
        labels: attribute name to one value a line.
    """

    captions: list[str]
    labels: dict[str, list[str]]


def shapes_captions(corpus: ShapesCorpus) -> Captions:
    """A caption source that draws scenes of the corpus."""

    def draw(generator: torch.Generator, count: int) -> list[str]:
        indices = torch.randint(2**31, (count,), generator=generator).tolist()
        return [corpus.scene(index).caption for index in indices]

    return draw


def shapes_labelled(corpus: ShapesCorpus, count: int) -> LabelledCaptions:
    """The first captions of a corpus with colour, shape, motion, tone and texture; unstated ones are not labelled.

    Args:
        corpus: where the scenes come from.
        count: number of captions.

    Returns:
        The captions; one template leaves the background out, and lines from it carry the label "unsaid" for it.
    """
    scenes = [corpus.scene(index) for index in range(count)]
    labels = {name: [str(getattr(scene, name)) for scene in scenes] for name in ("colour", "shape", "motion")}
    for name in ("tone", "texture"):
        labels[name] = [getattr(s, name) if "background" in s.caption else "unsaid" for s in scenes]
    return LabelledCaptions([scene.caption for scene in scenes], labels)


def _dice(generator: torch.Generator) -> random.Random:
    """Python's generator seeded from torch's: many small word choices are quick with it."""
    return random.Random(int(torch.randint(2**62, (1,), generator=generator)))


def english_lines(generator: torch.Generator, count: int) -> list[str]:
    """Plain English lines about many things, put together at random.

    Args:
        generator: of the choices.
        count: number of lines.

    Returns:
        The lines.
    """
    dice = _dice(generator)
    nouns, verbs, adjectives, places = _NOUNS.split(), _VERBS.split(), _ADJECTIVES.split(), _PLACES.split(";")
    words = {"n": nouns, "m": nouns, "v": verbs, "w": verbs, "a": adjectives, "b": adjectives, "p": places}
    return [dice.choice(_LINES).format(**{k: dice.choice(v) for k, v in words.items()}) for _ in range(count)]


def _replace(line: str, table: dict[str, Callable[[], str]]) -> str:
    """``line`` with whole phrases replaced in one pass, the longest first."""
    phrases = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    return re.sub(rf"\b({phrases})\b", lambda found: table[found[0]](), line)


def usual_wording(caption: str) -> str:
    """The caption with the corpus' rarer verb phrases replaced by the usual ones."""
    return _replace(caption, {rare: lambda u=usual: u for rare, usual in _RARE_WORDING.items()})  # type: ignore[misc]


def reword(caption: str, dice: random.Random) -> str:
    """The caption in other words: synonyms, and at times lost articles or another beginning.

    Args:
        caption: a line of the corpus.
        dice: of the choices.

    Returns:
        A line that means the same.
    """
    share = dice.random()  # some lines keep nearly every word, some hardly one
    line = _replace(
        usual_wording(caption),
        {k: lambda k=k: dice.choice(SYNONYMS[k]) if dice.random() < share else k for k in SYNONYMS},  # type: ignore[misc]
    )
    if dice.random() < 0.3:
        line = " ".join(word for word in line.split() if word not in ("a", "the"))
    if dice.random() < 0.15:
        line = f"{dice.choice(_OPENINGS)} {line}"
    return line
