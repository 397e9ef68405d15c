"""The code in README.md and docs/: what each fence holds, and how the text marks it.

A comment before a fence says how a test treats it:

    <!-- small -->              run, each training with a minute model and two updates
    <!-- not run: REASON -->    only parsed
    <!-- file: NAME -->         written to a file of this name
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What stands on these pages is for machines that are not here.
ELSEWHERE = {
    "pods.md": "TPU slices and clusters",
    "one-gpu.md": "a GPU",
    "results.md": "data that is not here, and hours",
}
OURS = {("python", "train.py"): ["train"], ("python", "eval.py"): ["eval"], ("python", "-m", "zoo"): []}
_FENCE = re.compile(r"(?:<!-- ([^>]*?) -->\n)?^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
_SHELL = re.compile(r"^(\(|python|pip|echo|printf|docs/|sbatch|kubectl|[A-Z_]+=|IMAGE|PROJECT)", re.M)
_OPERATORS = set("();<>|&")


@dataclass(frozen=True)
class Fence:
    """Code as it stands on a page from line `line` on. `mark` is the comment before it."""

    page: Path
    line: int
    language: str
    code: str
    mark: str

    @property
    def reason(self) -> str:
        """Why it is not run; empty where it is."""
        said = self.mark.removeprefix("not run:").strip() if self.mark.startswith("not run:") else ""
        return said or ELSEWHERE.get(self.page.name, "")

    @property
    def file(self) -> str:
        """The name of the file that it is, if it is one."""
        return self.mark.removeprefix("file:").strip() if self.mark.startswith("file:") else ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def fences(page: Path) -> Iterator[Fence]:
    """The code of a page, in its order. Fences without a language are shell where they look like it, else left out."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        mark, indent, language, code = found.groups()
        code = re.sub(f"^{indent}", "", code, flags=re.M)
        language = language or ("bash" if _SHELL.match(code) else "text")
        if language != "text":
            yield Fence(page, text.count("\n", 0, found.start(4)) + 1, language, code, mark or "")


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script, without redirections and here-documents."""
    script = re.sub(r"(<<'?(\w+)'?[^\n]*\n).*?^\2$", r"\1", script, flags=re.M | re.S).replace("\\\n", " ")
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.commenters, lexer.whitespace_split = "#", True
        words, skip = [], False
        for word in [*lexer, ";"]:
            if set(word) <= _OPERATORS:
                skip = word[0] in "<>"
                if not skip and words:
                    yield words
                    words = []
            elif skip:
                skip = False
            elif words or not re.match(r"[A-Z_]+=", word):
                words.append(word)


def ours(words: list[str]) -> list[str] | None:
    """The arguments of `zoo.cli.main` for a command line of the zoo; None for any other."""
    for beginning, arguments in OURS.items():
        if tuple(words[: len(beginning)]) == beginning:
            return arguments + words[len(beginning) :]
    return None


def quiet_environment() -> dict[str, str]:
    """This process's, in which MkDocs does not advertise."""
    return os.environ | {"NO_MKDOCS_2_WARNING": "1"}
