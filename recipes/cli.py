"""The command line ``cinepoet``: one parser, tables of commands, one place for errors.

A command is a module with ``SUMMARY``, ``EXAMPLES``, ``add_arguments(parser)`` and ``run(args)``. A module with
``COMMANDS`` in place of the last two is a table of more commands, as ``train`` is; each has options of its own.

A mistake of the user is one line on standard error and exit code 2; Ctrl-C is exit code 130. Modules of commands are
light, and what they need is imported when they run, so that help takes a moment only.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "generate": "recipes.commands.generate",
    "demo": "recipes.commands.demo",
    "reconstruct": "recipes.commands.reconstruct",
    "tokenize": "recipes.commands.tokenize",
    "prepare": "recipes.commands.prepare",
    "upscale": "recipes.commands.upscale",
    "embed": "recipes.commands.embed",
    "train": "recipes.commands.train",
    "evaluate": "recipes.commands.evaluate",
    "convert": "recipes.commands.convert",
    "assemble": "recipes.commands.assemble",
    "models": "recipes.commands.models",
    "doctor": "recipes.commands.doctor",
}
# words as they were spelled once, told where a command has the new spelling
RENAMED = {"--tokenizers": "--tokenizer", "evaluate shapes": "evaluate prompts"}
RENAMED_IN = {"prepare": {"--model": "--tokenizer"}, "assemble": {"--from": "--model"}}  # one command's
USER_ERRORS = (
    ValueError,
    OSError,
    ImportError,
)  # MediaError is a ValueError; OSError: absent, full or forbidden places


class UsageError(ValueError):
    """Arguments that the parser does not understand."""


class Parser(argparse.ArgumentParser):
    """A parser that raises ``UsageError`` instead of printing its usage, and never guesses abbreviated options."""

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})  # type: ignore[arg-type]
        self.commands: dict[str, Parser] = {}  # by name, where this is a table of commands

    @property
    def options(self) -> list[str]:
        """All spellings that the command takes."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message."""
        choice = re.match(r"argument \S+: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            known = re.findall(r"[\w-]+", choice[2])
            message = f"unknown choice {choice[1]!r}{_known(choice[1], known)}"
        raise UsageError(f"{message} (see {self.prog} --help)")


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _known(word: str, known: Sequence[str]) -> str:
    return _nearest(word, known) or f"; known: {', '.join(known)}"


def build_parser() -> Parser:
    """The parser of all commands."""
    from importlib import metadata

    parser = Parser(
        prog="cinepoet",
        description="Text, pictures, films and sound in; films with sound out.",
        epilog="cinepoet COMMAND --help tells more. First steps: cinepoet demo; cinepoet doctor when something fails.",
    )
    try:
        version = metadata.version("cinepoet")
    except metadata.PackageNotFoundError:
        version = "not installed"
    parser.add_argument("--version", action="version", version=f"cinepoet {version}")
    _add_commands(parser, COMMANDS, package=None)
    return parser


def _add_commands(parser: Parser, modules: dict[str, str], *, package: str | None) -> None:
    """Fill a parser with the commands of a table, and theirs with those of tables in it."""
    parsers = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for name, place in modules.items():
        module = importlib.import_module(place, package)
        command = parser.commands[name] = parsers.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        table = getattr(module, "COMMANDS", None)
        if table is not None:
            _add_commands(command, table, package=module.__name__)
        else:
            module.add_arguments(command)
            command.set_defaults(run=module.run, name=command.prog.split()[1:])


def _find_command(parser: Parser, words: list[str]) -> tuple[Parser, list[str]]:
    """The command that words name, and the words behind its name.

    Mistakes are told here: argparse would complain first about something that a misspelt option left out.
    """
    table, command = parser, parser
    while command.commands and words and not words[0].startswith("-"):
        name, *words = words
        if name not in command.commands:
            what = f"{command.prog} {name}".removeprefix("cinepoet ")
            if what in RENAMED:
                raise UsageError(f"{what} is now {RENAMED[what]}")
            known = _known(name, list(command.commands))
            raise UsageError(f"unknown command {what!r}{known} (see {command.prog} --help)")
        table, command = command, command.commands[name]
    for option in (w.partition("=")[0] for w in words):
        if option == "--":
            break
        if option.startswith("--") and option not in command.options:
            renamed = RENAMED | RENAMED_IN.get(command.prog.removeprefix("cinepoet "), {})
            if renamed.get(option) in command.options:
                raise UsageError(f"{option} is now {renamed[option]}")
            others = [c.prog for c in table.commands.values() if option in c.options] if table is not parser else []
            hint = f"; {', '.join(others)} {'has' if len(others) == 1 else 'have'} it" if others else ""
            hint = hint or _nearest(option, command.options)
            raise UsageError(f"unknown option {option}{hint} (see {command.prog} --help)")
    return command, words


def _parse(words: list[str]) -> argparse.Namespace:
    parser = build_parser()
    if not words:
        parser.print_help()
        raise SystemExit(0)
    command, rest = _find_command(parser, words)
    if command.commands and not {"-h", "--help", "--version"} & set(rest):
        raise UsageError(f"{command.prog} needs one of {', '.join(command.commands)} (see {command.prog} --help)")
    args, unknown = parser.parse_known_args(words)
    if unknown and hasattr(args, "changes"):  # argparse gives up on key=value words that stand behind an option
        args.changes = [*args.changes, *(w for w in unknown if "=" in w and not w.startswith("-"))]
        unknown = [w for w in unknown if "=" not in w or w.startswith("-")]
    if unknown:
        what = "option" if unknown[0].startswith("-") else "argument"
        raise UsageError(f"unexpected {what} {unknown[0]!r}; put a text of several words in quotes")
    return args


def one_line(fault: BaseException) -> str:
    """An error as one line for the user."""
    if isinstance(fault, OSError) and fault.strerror and fault.filename:
        return f"{fault.filename}: {fault.strerror}"
    return " ".join(str(fault).split()) or type(fault).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words behind ``cinepoet``; None takes the process's own.

    Returns:
        The exit code: 0 on success, 1 when something is broken, 2 for a mistake of the user, 130 for Ctrl-C.
    """
    started = time.monotonic()
    try:
        args = _parse(list(sys.argv[1:] if argv is None else argv))
        args.started = started
        return args.run(args)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("cinepoet: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that the interpreter's last flush does not fail too
        return 0
    except FloatingPointError as fault:  # a training that diverged
        print(f"cinepoet: {one_line(fault)}", file=sys.stderr)
        return 1
    except USER_ERRORS as fault:
        advice = " (cinepoet doctor tells what is missing)" if isinstance(fault, ImportError) else ""
        print(f"cinepoet: {one_line(fault)}{advice}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
