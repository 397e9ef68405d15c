"""`translate`: lines in, lines out."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments import (
    add_checkpoint,
    add_decoding,
    add_sampling,
    decoding_changes,
    dictionary,
    directory,
    lines_of,
    positive,
    sampling_options,
)
from zoo.cli.lines import flush, inputs, whole_input, write
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.decoding.ancestral import Draws
    from zoo.decoding.translator import Translation, Translator
    from zoo.workdirs import Workdir

HELP = "translate standard input to standard output, line by line"
EXAMPLE = 'echo "Thursday, March 3, 2022" | python -m zoo translate runs/phrases --beam 4 --alignment'
CHUNK = 2000  # lines at most that are sorted by length and translated together

log = logging.getLogger("zoo")
Input = tuple[list[str], list[str] | None]  # lines, and the beginning of each translation
Writer = Callable[[int, str, "list[Translation]"], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workdirs",
        type=directory,
        nargs="+",
        metavar="WORKDIR",
        help="a working directory; the probabilities of several are averaged, and the first says how to decode",
    )
    add_decoding(parser.add_argument_group("search"))
    add_sampling(parser.add_argument_group("sampling instead (any of these)"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--n-best",
        "--nbest",
        type=positive,
        metavar="N",
        help="the N best, or N samples, as `line ||| translation ||| score`",
    )
    output.add_argument(
        "--all-segmentations",
        action="store_true",
        help="list a text again for every other way to spell it in tokens (default: each text once; a larger "
        "--beam-size finds more)",
    )
    output.add_argument("--alignment", action="store_true", help="append ` ||| 0-0 1-2`: source word-target word")
    output.add_argument("--json", action="store_true", help="an object per line: translation, score, n_best, alignment")
    words = parser.add_argument_group("words")
    prefix = words.add_mutually_exclusive_group()
    prefix.add_argument("--prefix", metavar="TEXT", help="begin every translation with TEXT")
    prefix.add_argument("--prefixes", type=lines_of, metavar="FILE", help="begin each with its own line of FILE")
    words.add_argument("--replace-unk", action="store_true", help="replace <unk> by the source word it is aligned to")
    words.add_argument(
        "--dictionary",
        type=dictionary,
        metavar="FILE",
        help="and translate that word by FILE, lines of source word<TAB>target word",
    )
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import ensemble, load

    workdirs = [load(path, args.checkpoint, decoding_changes(args), command="translate") for path in args.workdirs]
    _check_attention(args, workdirs)
    data, beam = workdirs[0].experiment.data, workdirs[0].experiment.decoding.beam_size
    how = {"draws": _draws(args, beam)} | ({"batch_tokens": args.batch_tokens} if args.batch_tokens else {})
    translator = workdirs[0].translator(**how) if len(workdirs) == 1 else ensemble(workdirs, **how)
    if sys.stdin.isatty():
        log.info("translating %s to %s line by line; Ctrl-D ends", data.source, data.target)
    finish, line_of = _finisher(args, translator), _writer(args, translator)
    first = 1
    for lines, prefixes in _inputs(args, f"{data.source}> "):
        attention = args.alignment or _copies(args)
        translations = translator(lines, attention, first, prefixes, args.all_segmentations)
        for number, (line, best) in enumerate(zip(lines, translations, strict=True), first):
            write(f"{line_of(number, line, finish(line, best))}\n")
        flush()
        first += len(lines)


def _draws(args: argparse.Namespace, beam: int) -> "Draws | None":
    """The sampling to use; None for beam search."""
    options = sampling_options(args)
    if options or args.seed is not None:
        from zoo.decoding.ancestral import Draws
        from zoo.decoding.sampling import SamplingConfig

        if args.beam_size:
            raise UserError(
                f"--beam-size={args.beam_size} is for beam search, but --temperature and the like sample: choose one; "
                "--n-best=N draws N samples"
            )
        return Draws(SamplingConfig(**options), args.n_best or 1, args.seed or 0)
    if args.n_best and args.n_best > beam:
        raise UserError(f"--n-best={args.n_best} is larger than the beam of {beam}: set --beam-size={args.n_best}")
    return None


def _copies(args: argparse.Namespace) -> bool:
    return args.replace_unk or args.dictionary is not None


def _check_attention(args: argparse.Namespace, workdirs: "Sequence[Workdir]") -> None:
    """Refuse options that need attention if a model has none: its uniform weights would look like links."""
    remedies = {"alignment": "leave it out", "replace_unk": "use --no-unk", "dictionary": "use --no-unk"}
    asked = [name for name in remedies if getattr(args, name) not in (False, None)]
    for blind in (workdir for workdir in workdirs if asked and not workdir.attends):
        option, name = asked[0].replace("_", "-"), blind.experiment.model.name
        raise UserError(
            f"--{option}: the {name} of {blind.path} has no attention to tell which word of the source a word "
            f"stands for: {remedies[asked[0]]}"
        )


def _inputs(args: argparse.Namespace, prompt: str) -> Iterator[Input]:
    """The groups of lines that are translated together. Lines with their own prefixes form one group, so that a missing
    or too long prefix is reported before anything is written."""
    if args.prefixes is not None:
        if sys.stdin.isatty():
            raise UserError("--prefixes needs the lines of a file: add < FILE, or use --prefix")
        lines = whole_input()
        if len(lines) != len(args.prefixes):
            raise UserError(f"--prefixes has {len(args.prefixes)} lines, the input {len(lines)}: give one for each")
        yield lines, args.prefixes
        return
    for lines in inputs(prompt, CHUNK):
        yield lines, None if args.prefix is None else [args.prefix] * len(lines)


def _finisher(
    args: argparse.Namespace, translator: "Translator"
) -> "Callable[[str, list[Translation]], list[Translation]]":
    """How a line's translations are changed before they are written."""
    if not _copies(args):
        return lambda line, translations: translations
    from zoo.decoding.alignment import replace_unknown
    from zoo.decoding.translator import distinct

    def finish(line: str, translations: "list[Translation]") -> "list[Translation]":
        sides, dictionary = (translator.source, translator.target), args.dictionary or {}
        copied = [replace_unknown(line, each, *sides, dictionary) for each in translations]
        return copied if args.all_segmentations or translator.draws else distinct(copied)

    return finish


def _writer(args: argparse.Namespace, translator: "Translator") -> Writer:
    """How the translations of a line are written."""
    from zoo.decoding.alignment import word_links

    def links(line: str, translation: "Translation") -> list[tuple[int, int]]:
        return word_links(line, translation, translator.source, translator.target)

    def suffix(line: str, translation: "Translation") -> str:
        return f" ||| {' '.join(f'{s}-{t}' for s, t in links(line, translation))}" if args.alignment else ""

    def plain(number: int, line: str, best: "Sequence[Translation]") -> str:
        return best[0].text + suffix(line, best[0])

    def n_best(number: int, line: str, best: "Sequence[Translation]") -> str:
        rows = (f"{number - 1} ||| {t.text} ||| {t.score:.4f}{suffix(line, t)}" for t in best[: args.n_best])
        return "\n".join(rows)

    def record(line: str, translation: "Translation") -> dict[str, Any]:
        aligned = {"alignment": links(line, translation)} if args.alignment else {}
        return {"translation": translation.text, "score": translation.score} | aligned

    def as_json(number: int, line: str, best: "Sequence[Translation]") -> str:
        listed = {"n_best": [record(line, each) for each in best[: args.n_best]]} if args.n_best else {}
        return json.dumps(record(line, best[0]) | listed, ensure_ascii=False)

    return as_json if args.json else n_best if args.n_best else plain
