"""Models and tasks of your own, in files outside the package.

A model is one file: a module, a config, and a line that registers them (`zoo.models.base` is the contract):

    # my_model.py
    from zoo.models import registry

    registry.register("mine", registry.Family(MyModel, MyConfig, SIZES, "Me 2026", batch=LanguageBatch))

A config that lies beside it imports it and names it:

    # my_config.py
    import my_model  # or a module of any package that Python finds
    import ml_collections

    def get_config():
        return ml_collections.ConfigDict({"task": "language_modeling", "model": {"name": "mine", "size": "small"}})

`python train.py --config=my_config.py` trains it. The working directory remembers where the module was, and every later
command imports it from there, or else from wherever Python finds a module of that name. A task works the same way, with
`zoo.tasks.registry.register`.

A module is never read from within a working directory: whoever gets one from someone else must be able to open it
without running what came with it.
"""

import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import UserError

OURS = __name__.partition(".")[0]

log = logging.getLogger("zoo")


def alike(one: type, other: type) -> bool:
    """Whether two classes are the same, or made by the same line of a file that was run twice."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def origins(*classes: type) -> dict[str, str]:
    """The modules that define those of `classes` that are not the zoo's, each with the folder it is found in."""
    found = {}
    for cls in classes:
        if cls.__module__.partition(".")[0] != OURS:
            found.update(_origin(cls))
    return found


def _origin(cls: type) -> dict[str, str]:
    module = sys.modules.get(cls.__module__)
    path = getattr(module, "__file__", None)
    if path is None or cls.__module__ == "__main__":
        log.warning("%s is defined in this session alone: move it to a file, or no other opens this run", cls.__name__)
        return {}
    file, spec = Path(path).resolve(), module.__spec__
    if spec is None or "." not in spec.name:
        return {file.stem: str(file.parent)}
    depth = spec.name.count(".") + (spec.submodule_search_locations is not None)
    return {spec.name: str(file.parents[depth])}


def load(modules: Mapping[str, str], owner: Path) -> None:
    """Import `modules`, each from its folder or else from where Python finds it; `owner` is the directory that asks.

    Raises `UserError` for a module that is not found, that lies within `owner`, or that fails.
    """
    for name, folder in modules.items():
        with _importable_from(folder):
            try:
                spec = importlib.util.find_spec(name.partition(".")[0])
            except ValueError:  # already imported, and made by hand
                spec = None
            if spec is None and name not in sys.modules:
                raise UserError(
                    f"{owner} needs the module {name}, which was in {folder}: put it back, or name the folder that "
                    "it is in now: PYTHONPATH=FOLDER"
                )
            places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
            if any(place and Path(place).resolve().is_relative_to(Path(owner).resolve()) for place in places):
                raise UserError(
                    f"{owner} asks to run its own {name}.py: if you trust it, move it elsewhere, and name that folder: "
                    "PYTHONPATH=FOLDER"
                )
            with blamed(Path(folder) / f"{name.replace('.', '/')}.py", "cannot be imported"):
                importlib.import_module(name)


@contextmanager
def _importable_from(folder: str) -> Iterator[None]:
    """While it lasts, Python finds the modules of `folder` before all others."""
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def beside(file: Path) -> Iterator[None]:
    """While it lasts, `file` can import the modules that lie beside it, as a script can."""
    with _importable_from(str(file.resolve().parent)):
        yield


@contextmanager
def blamed(file: Path, fault: str) -> Iterator[None]:
    """Around code of the user's: an exception of its own becomes a `UserError` that names the innermost line of `file`,
    or of what lies beside it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if file.parent in Path(f.filename).parents]
        where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else str(file)
        raise UserError(f"{where} {fault} ({type(error).__name__}: {error}): fix it") from error
