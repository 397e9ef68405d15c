"""Parse a command line into its arguments, or raise a `UserError` of one line."""

import argparse
import difflib
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import zoo
from zoo.errors import UserError, nearest

if TYPE_CHECKING:
    from zoo.storage import AnyPath

Change = tuple[str, str]
# The keys of a config's `decoding` that have an option.
PENALTIES = ("length_penalty", "coverage_penalty")
DECODING = ("beam_size", *PENALTIES, "max_length", "forbid_unknown", "compute_dtype", "quantize")
Options = argparse.ArgumentParser | argparse._ArgumentGroup  # what takes options


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as the rest of the zoo does: with a `UserError`, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def parse(argv: Sequence[str], commands: Mapping[str, ModuleType]) -> argparse.Namespace:
    """The arguments of the command that `argv` names; `changes` holds its `--config.KEY=VALUE`.

    Raises `UserError` for an unknown command, option or value, and `SystemExit` after `--help` and `--version`.
    """
    if not argv:
        raise UserError(f"no command given: choose one of {', '.join(commands)} (see python -m zoo --help)")
    _check_characters(argv)
    if not argv[0].startswith("-") and argv[0] not in commands:
        raise UserError(f"no command {argv[0]!r}: {nearest(argv[0], commands)}")
    words, changes = split_changes(argv)
    parser = _Parser("zoo", description=zoo.__doc__.partition("\n")[0], allow_abbrev=False, formatter_class=_Layout)
    parser.add_argument("--version", action="version", version=f"zoo {zoo.__version__}")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subparsers = {}
    for name, module in commands.items():
        subparsers[name] = choices.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            epilog=f"example:\n  {module.EXAMPLE}",
            allow_abbrev=False,
            formatter_class=_Layout,
        )
        module.add_arguments(subparsers[name])
    args, unknown = parser.parse_known_args(words)
    if unknown:
        raise UserError(_unknown(unknown[0], args.command, subparsers[args.command]))
    if changes and args.command not in ("train", "plan"):
        raise UserError(f"--config.{changes[0][0]}: only train and plan accept changes to the config")
    args.changes = changes
    return args


def _check_characters(argv: Sequence[str]) -> None:
    """Raise `UserError` for bytes that are not UTF-8. Python keeps them as halves of surrogate pairs, which match no
    text and cannot be written."""
    for number, word in enumerate(argv):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            option, equals, _ = word.partition("=")
            before = argv[number - 1] if number else ""
            named = option if equals else before if before.startswith("--") else f"argument {number}"
            shown = word.encode(errors="backslashreplace").decode()
            raise UserError(
                f"{named.encode(errors='replace').decode()}: {shown!r} is not UTF-8 at character {error.start + 1}: "
                "write it in UTF-8, or rename the file"
            ) from error


class _Layout(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and leaves more room for options."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)


def _unknown(word: str, command: str, parser: argparse.ArgumentParser) -> str:
    option = word.partition("=")[0]
    known = [name for name in parser._option_string_actions if name.startswith("--")]
    close = difflib.get_close_matches(option, known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"python -m zoo {command} --help lists the options"
    return f"{command} does not accept {word!r}: {remedy}"


def split_changes(argv: Sequence[str]) -> tuple[list[str], list[Change]]:
    """`argv` without any `--config.KEY=VALUE` or `--config.KEY VALUE`, and these as (KEY, VALUE)."""
    rest, changes, words = [], [], iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        if not equals:
            value = next(words, "--")
            if value.startswith("--"):
                raise UserError(f"--config.{key} has no value: write --config.{key}=VALUE")
        changes.append((key, value))
    return rest, changes


def add_decoding(parser: Options) -> None:
    """The options of beam search, the same in every command."""
    _add_penalties(parser)
    parser.add_argument("--max-length", type=positive, metavar="N", help="cut sources and translations after N tokens")
    parser.add_argument("--batch-tokens", type=positive, metavar="N", help="padded source tokens decoded together")
    parser.add_argument(
        "--beam-size", "--beam", type=positive, metavar="K", help="hypotheses kept at each step (1: greedy)"
    )
    parser.add_argument(
        "--no-unk",
        dest="forbid_unknown",
        action="store_const",
        const=True,
        help="never produce <unk>; take the next best token",
    )


def add_scoring(parser: Options) -> None:
    """The options of beam search that also decide the score of a given translation."""
    _add_penalties(parser)
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="cut sources after N tokens; given translations are never cut"
    )
    parser.add_argument("--batch-tokens", type=positive, metavar="N", help="padded tokens of a side scored together")


def _add_penalties(parser: Options) -> None:
    parser.add_argument(
        "--length-penalty",
        "--lenpen",
        type=number,
        metavar="A",
        help="alpha of GNMT: larger favours longer translations",
    )
    parser.add_argument(
        "--coverage-penalty",
        type=number,
        metavar="B",
        help="beta of GNMT: larger favours translations that leave nothing out",
    )
    add_numbers(parser)


def add_numbers(parser: Options) -> None:
    """In which numbers a trained model computes, the same for every model."""
    parser.add_argument(
        "--compute-dtype", metavar="DTYPE", help="float32 (default), bfloat16 or auto: the device's fastest"
    )
    parser.add_argument(
        "--quantize", metavar="KIND", help="int8: round matrices to 8 bits, for speed and a quarter of their memory"
    )


def decoding_changes(args: argparse.Namespace) -> tuple[Change, ...]:
    """The keys of the config that the options of `add_decoding` or `add_scoring` set."""
    given = ((key, getattr(args, key, None)) for key in DECODING)
    return tuple((f"decoding.{key}", str(value)) for key, value in given if value is not None)


def add_bleu(parser: Options) -> None:
    """The option of BLEU, the same in every command."""
    parser.add_argument(
        "--bleu-tokenizer",
        metavar="NAME",
        help="sacreBLEU's tokenizer: 13a, zh, ja-mecab, ko-mecab, char, ... (default: by the target language)",
    )


def evaluation_changes(args: argparse.Namespace) -> tuple[Change, ...]:
    """The changes of `decoding_changes`, and the keys for the batch size of an evaluation and for BLEU's tokenizer."""
    given = {"batch_tokens": args.batch_tokens, "bleu_tokenizer": args.bleu_tokenizer}
    return decoding_changes(args) + tuple(
        (f"data.{key}", str(value)) for key, value in given.items() if value is not None
    )


def add_sampling(parser: Options) -> None:
    """The options of sampling, the same in every command."""
    parser.add_argument(
        "--temperature",
        type=number,
        metavar="T",
        help="below 1: less random; above 1: more random; 0: always the likeliest token",
    )
    parser.add_argument("--top-k", type=positive, metavar="K", help="draw from the K likeliest tokens")
    parser.add_argument(
        "--top-p", type=number, metavar="P", help="draw from the fewest tokens that together have probability P"
    )
    parser.add_argument(
        "--min-p", type=number, metavar="P", help="draw from tokens at least P times as likely as the likeliest"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="the seed of the draws (default: 0)")


def sampling_options(args: argparse.Namespace) -> dict[str, float]:
    """The fields of a `SamplingConfig` that the options of `add_sampling` set."""
    names = ("temperature", "top_k", "top_p", "min_p")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", default="best", metavar="WHICH", help="best (default), latest, average or the number of a step"
    )


def positive(text: str) -> int:
    """A whole number of at least 1, as an argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def natural(text: str) -> int:
    """A whole number of at least 0, as an argparse type."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def number(text: str) -> float:
    """A finite number, as an argparse type."""
    try:
        if math.isfinite(value := float(text)):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number")


def seed(text: str) -> int:
    """A whole number that JAX accepts as a seed, as an argparse type."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def lines_of(text: str) -> list[str]:
    r"""The lines of a text file, as an argparse type; only \n ends one."""
    from zoo.data.text import files

    if (path := files.find(text)) is None:
        raise argparse.ArgumentTypeError(f"no file {text}")
    return list(files.lines(path))


def output(text: str) -> "AnyPath":
    """A file that can be written, as an argparse type."""
    from zoo.storage import output

    try:
        return output(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def dictionary(text: str) -> dict[str, str]:
    """{source word: target word} of a file with such lines, as an argparse type; the first line of a word counts."""
    meanings = {}
    for number, line in enumerate(lines_of(text), 1):
        words = line.split("\t")
        if len(words) != 2 or any(len(word.split()) != 1 for word in words):
            raise argparse.ArgumentTypeError(
                f"{text}:{number}: {line[:40]!r} is not a source word, a tab, a target word"
            )
        meanings.setdefault(*map(str.strip, words))
    return meanings


def directory(text: str) -> "AnyPath":
    """A working directory, as an argparse type."""
    from zoo.storage import located

    return located(text)
