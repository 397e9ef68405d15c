"""The command line, `python -m zoo COMMAND`: it parses, calls and prints.

A command is a module with `HELP`, `EXAMPLE`, `add_arguments(parser)` and `run(args)`. Only `run` imports what needs
JAX, so that help and mistakes are answered at once.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from zoo import logs
from zoo.cli import average, classify, convert, evaluate, generate, models, plan, plot, score, train, translate
from zoo.cli.arguments import parse
from zoo.cli.compilation_cache import keep_programs
from zoo.cli.lines import speak_utf8
from zoo.errors import REMEDIES, UserError, refused
from zoo.parallel.heap import keep_heap

COMMANDS = {
    "train": train,
    "translate": translate,
    "score": score,
    "generate": generate,
    "classify": classify,
    "eval": evaluate,
    "models": models,
    "average": average,
    "convert": convert,
    "plot": plot,
    "plan": plan,
}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for an error of the user, 130 after Ctrl-C."""
    logs.set_up()
    speak_utf8()
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parse(argv, COMMANDS)
        COMMANDS[args.command].run(args)
        sys.stdout.flush()
    except UserError as error:
        return _failed(str(error))
    except BrokenPipeError:
        _leave_standard_output()  # the reader, such as `head`, has read enough
    except OSError as error:
        if error.errno not in REMEDIES:  # any other error is a defect and keeps its traceback
            raise
        if error.filename is None:
            _leave_standard_output()
        return _failed(refused(error.filename or "standard output", error))
    except KeyboardInterrupt:
        going_on = "the same command resumes from the last checkpoint" if argv[:1] == ["train"] else "nothing is lost"
        print(f"\nzoo: interrupted: {going_on}", file=sys.stderr)
        return INTERRUPTED
    return 0


def enter(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command as this process, and end with its exit code."""
    keep_programs()
    keep_heap()
    code = main(argv)
    if code == INTERRUPTED:
        # XLA may be compiling in a thread, which would crash while Python shuts down; all files are closed.
        os._exit(code)
    sys.exit(code)


def _leave_standard_output() -> None:
    """Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str) -> int:
    print(f"zoo: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
