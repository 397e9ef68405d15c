"""A folder in which the code of the documentation runs, without a new process for each command.

Shell code is run by bash. Its `python` is a small program that hands the words and the input to this process, which has
compiled much already, and prints what comes back.
"""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, Fence, fences, ours

import zoo.runs
from zoo.cli import main
from zoo.experiment import from_file
from zoo.models import registry

CLIENT = """#!{python} -ISE
import json, os, socket, sys
words = ["python", *sys.argv[1:]]
here = words[1:2] in (["train.py"], ["eval.py"], ["-"]) or words[1:3] == ["-m", "zoo"]
alone = os.environ.get("XLA_FLAGS") != {flags!r}  # which JAX reads once
if not here:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
given = "" if alone or sys.stdin.isatty() else sys.stdin.read()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps([words, given, alone]).encode() + b"\\n")
    code, out = json.loads(server.makefile().read())
if alone:
    os.execv({python!r}, [{python!r}, *out])
sys.stdout.write(out)
sys.exit(code)
"""
MODEL = {"width": 16, "embedding": 16, "maxout": 16, "alignment": 16, "ffn": 16, "heads": 2, "layers": 1}
TRAINING = {"steps": 2, "evaluate_every": 2, "checkpoint_every": 1, "log_every": 1, "evaluation_size": 10}
TRAINING |= {"compute_dtype": "float32", "compile_ahead": 0}
DATA = {"batch_tokens": 512, "max_length": 24, "length": 32, "batch_rows": 4}
DECODING = {"compute_dtype": "float32", "max_length": 8, "max_extra": 2, "max_new_tokens": 4}
# Of a text: a donor brings its own, and phrases are small.
LEARNED = {"translation": {"vocabulary": 48}, "language_modeling": {"tokenizer": "bytes", "vocabulary": 260}}
# Sentences of few words, which still have as many pieces as a small vocabulary.
ENGLISH = "the red house stands alone by quiet water under green trees where children often play with wooden boats"
GERMAN = "das rote Haus steht einsam am stillen Wasser unter grünen Bäumen wo Kinder oft mit hölzernen Booten spielen"


class Sandbox:
    """The project's files by their names, text in `DIR`, and two pairs of languages. Use it as a context."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self._small, self._families = folder, False, {*registry.FAMILIES}
        for name in ("train.py", "eval.py", "README.md", "docs", "zoo", "benchmarks"):
            (folder / name).symlink_to(ROOT / name)
        _write_texts(folder / "DIR")
        self._address = str(folder / "socket")
        tools = folder / "tools"
        tools.mkdir()
        client = CLIENT.replace("{python!r}", repr(sys.executable)).replace("{python}", sys.executable)
        client = client.replace("{flags!r}", repr(os.environ.get("XLA_FLAGS")))
        for name, text in (
            ("python", client.replace("{address!r}", repr(self._address))),
            ("pip", "#!/bin/sh\n"),
        ):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        train = zoo.runs.train
        monkeypatch.setattr(zoo.runs, "train", lambda *a, **k: train(*a, **k, **dict(self._changes(a[0], k))))

    def __enter__(self) -> "Sandbox":
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self._address)
        self._server.listen()
        self._server.settimeout(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        for name in registry.FAMILIES.keys() - self._families:  # those of a page
            del registry.FAMILIES[name]

    def run_page(self, page: Path) -> None:
        """Write the files that a page shows, and run its code, in its order."""
        for fence in fences(page):
            if fence.file:
                (self.folder / fence.file).write_text(fence.code)
            elif not fence.reason:
                self.run(fence)

    def run(self, fence: Fence) -> None:
        """Run a fence; anything that fails fails the test, with the page and the line."""
        self._small = fence.mark == "small"
        if fence.language == "python":
            exec(compile(fence.code, str(fence), "exec"), {"__name__": "__main__"})
            return
        bash = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", fence.code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = []
        while bash.poll() is None:
            with contextlib.suppress(TimeoutError):
                connection, _ = self._server.accept()
                told.append(self._answer(connection))
        assert bash.returncode == 0, f"{fence}: {bash.stdout.read()}\n{''.join(told)}"

    def _answer(self, connection: socket.socket) -> str:
        """Do what a client asks for. Gives what was logged, for a test that fails."""
        with connection, connection.makefile("rw") as stream:
            words, given, alone = json.loads(stream.readline())
            code, out, log = (0, self._small_words(words), "") if alone else self._python(words, given)
            stream.write(json.dumps([code, out]))
        return f"$ {' '.join(words)}\n{log}"

    def _python(self, words: list[str], given: str) -> tuple[int, str, str]:
        out, log = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        stdin = io.TextIOWrapper(io.BytesIO(given.encode()), "utf-8")
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(log):
            patch.setattr(sys, "stdin", stdin)
            code = 0
            if (argv := ours(words)) is None:
                exec(compile(given, "-", "exec"), vars(types.ModuleType("__main__")))
            else:
                code = main([*argv, *self._words(argv)])
        return code, *(stream.detach().getvalue().decode() for stream in (_flushed(out), _flushed(log)))

    def _small_words(self, words: list[str]) -> list[str]:
        """What a command line says behind `python`, for a process of its own."""
        argv = ours(words)
        return [*words[1:], *(self._words(argv) if argv else ())]

    def _words(self, argv: list[str]) -> list[str]:
        if argv[0] != "train":
            return []
        options = dict(word.removeprefix("--").partition("=")[::2] for word in argv if "=" in word)
        changes = self._changes(options.get("config", "phrases.py"), options)
        return [f"--config.{key}={value}" for key, value in changes]

    def _changes(self, config: str, options: dict[str, Any]) -> list[tuple[str, Any]]:
        """What makes a training small, as far as the config has such keys."""
        if not self._small:
            return []
        tree = from_file(config).as_dict()
        model = tree["model"]["name"], tree["model"]["size"]
        sizes = {field.name for field in fields(registry.config(*model))}
        changes = {f"model.{key}": value for key, value in MODEL.items() if key in sizes}
        given = options.keys() & {"init_from", "like"} or tree["data"].get("train") == "phrases"
        data = DATA if given else DATA | LEARNED.get(tree["task"], {})
        for room, values in (("train", TRAINING), ("data", data), ("decoding", DECODING)):
            changes |= {f"{room}.{key}": value for key, value in values.items() if key in tree[room]}
        return list(changes.items())


def _flushed(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    return stream


def _write_texts(folder: Path) -> None:
    """Pairs for a translator, and folders of text for a language model."""
    folder.mkdir()
    for split in ("train", "valid", "test", "real", "mono"):
        for language, words in (("en", ENGLISH), ("de", GERMAN)):
            each = words.split()
            lines = "".join(f"{each[n % 5]} {each[n % 7]} {each[n % len(each)]} {n}\n" for n in range(60))
            (folder / f"{split}.{language}").write_text(lines, encoding="utf-8")
        (folder / split).mkdir()
        (folder / split / "a.txt").write_text("The cat sat on the mat, and looked at the dog. " * 60)
