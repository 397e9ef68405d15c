"""A foreign `config.json`, read key by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import UserError, nearest
from zoo.interop.files import damaged, read_json

MOST = 2**31


@dataclass(frozen=True)
class Settings:
    """The values of a config file. Each reader raises UserError that names the file, the key and the value."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> "Settings":
        return cls(path, read_json(path))

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number above 0."""
        value = self._value(key, default)
        if type(value) is not int or not 0 < value < MOST:
            raise damaged(self.path, f"{key}={value!r} is no whole number above 0")
        return value

    def row(self, key: str, default: int | None = None) -> int | None:
        """The row of a special token, or None where there is none."""
        value = self.values.get(key, default)
        value = value[0] if isinstance(value, list) and value else value
        if value is not None and (type(value) is not int or not 0 <= value < MOST):
            raise damaged(self.path, f"{key}={value!r} is no row of a vocabulary")
        return value

    def share(self, key: str, default: float) -> float:
        """A probability below 1."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise damaged(self.path, f"{key}={value!r} is no probability")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise damaged(self.path, f"{key}={value!r} is neither true nor false")
        return value

    def choice(self, key: str, default: str, known: Mapping[str, str]) -> str:
        """What `known` calls the value."""
        value = self._value(key, default)
        if value not in known:
            raise UserError(f"{self.path}: {key}={value!r} is not known here: {nearest(str(value), known)}")
        return known[value]

    def require(self, key: str, expected: Any, *also: Any) -> None:
        """Raise UserError if the zoo's model cannot do what this key asks for."""
        if key in self.values and self.values[key] not in (expected, *also):
            raise UserError(
                f"{self.path}: {key}={self.values[key]!r} is not something that the zoo's model does: only "
                f"{expected!r} can be read"
            )

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise damaged(self.path, f"it has no {key}")
        return value
