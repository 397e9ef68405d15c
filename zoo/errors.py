"""The one exception for errors of the user.

Everything a user can cause (a misspelt key, a missing file, a truncated checkpoint) is raised as `UserError`; the
command line prints its single line and ends with exit code 2. Any other exception is a defect and keeps its traceback.
"""

import difflib
import errno
from collections.abc import Iterable

# Errors of the system that only the user can remove.
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "ask for the permission to write there",
    errno.EPERM: "ask for the permission to write there",
    errno.EROFS: "the place is read-only",
    errno.EISDIR: "name a file",
}


class UserError(Exception):
    """One line that names the thing, the value and the remedy."""


def check_choice(key: str, value: str, known: Iterable[str]) -> None:
    """Raise `UserError` unless the `value` of a config's `key` is one of the `known`."""
    if value not in known:
        raise UserError(f"{key}={value!r}: choose one of {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for a misspelt `name`: "did you mean X?" when one is close, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def refused(what: object, error: OSError) -> str:
    """The text of a system error, with its remedy."""
    remedy = REMEDIES.get(error.errno)
    return f"{what}: {error.strerror or error}: {f'{remedy}, or ' if remedy else ''}write elsewhere"
