"""recipes/runtime/config.py: defaults, file, words, and every mistake named."""

from dataclasses import dataclass, field

import pytest

from recipes.runtime.config import from_dict, load_config, merge, old_words, to_dict


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-3
    sizes: tuple[int, ...] = (64,)


@dataclass(frozen=True)
class Outer:
    steps: int
    name: str | None = None
    inner: Inner = field(default_factory=Inner)
    weights: dict[str, float] = field(default_factory=dict)


def test_file_then_words(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("steps: 5\ninner:\n  lr: 1e-4\n")
    config = load_config(Outer, file, ["inner.sizes=[8, 16]", "weights.a=2", "name=null"])
    assert config == Outer(5, None, Inner(1e-4, (8, 16)), {"a": 2.0})
    assert from_dict(Outer, to_dict(config)) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stepz=3"], "unknown key stepz; did you mean steps"),
        (["inner.learning=3"], "unknown key inner.learning; known: lr, sizes"),
        (["steps=many"], "steps must be of type int, got 'many'"),
        (["steps"], "expected key=value, got 'steps'"),
        (["steps=[1"], "is not valid YAML"),
        (["steps=1", "steps.more=2"], "steps is a single value and has no keys below it"),
        (["inner.lr=fast"], "inner.lr must be a number"),
        (["name=a"], "missing keys: steps"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, merge({}, words))


def test_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.yaml does not exist"):
        load_config(Outer, tmp_path / "absent.yaml", [])
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n")
    with pytest.raises(ValueError, match="must hold a table of keys"):
        load_config(Outer, file, [])
    file.write_text("a: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_config(Outer, file, [])


@dataclass(frozen=True)
class Rates:
    lr: float = 1.0
    grad_clip: float | None = None
    ema: float = 0.5


@dataclass(frozen=True)
class Training:
    optim: Rates = Rates(lr=0.1)
    steps: int = 3


@dataclass(frozen=True)
class Line:
    lm: Training = Training(optim=Rates(lr=0.2))


def test_a_table_changes_the_default_of_its_owner_and_not_that_of_its_class():
    assert from_dict(Training, {"optim": {"ema": 0.9}}) == Training(Rates(0.1, None, 0.9))
    assert from_dict(Line, merge({"lm": {"steps": 4}}, ["lm.optim.grad_clip=2"])) == Line(Training(Rates(0.2, 2.0), 4))


def test_old_words_are_refused_with_the_new_ones():
    with pytest.raises(ValueError, match=r"^lm.learning_rate is now lm.optim.lr; lm.clip is now lm.optim.grad_clip$"):
        from_dict(Line, {"lm": {"learning_rate": 1, "clip": 2}})
    record = {"lm": {"warmup": 3, "optim": {"lr": 1}}, "steps": 2, "ema_decay": None}
    assert old_words(record) == ["lm.warmup is now lm.optim.warmup_steps", "ema_decay is now optim.ema"]
    assert old_words(to_dict(Line())) == []
