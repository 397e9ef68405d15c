"""What holds the annotations of the zoo while its tests run, by jaxtyping's import hook (see `pyproject.toml`)."""

from functools import wraps

from beartype import BeartypeConf, beartype

strictly = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


def checked(function):
    """`beartype`, but for the constructors of pytrees: every tree map makes them anew, of shapes, shardings, stacked or
    host arrays as it may be, and none of those is what the annotations speak of."""
    strict = strictly(function)
    if function.__name__ != "__init__":
        return strict

    @wraps(function)
    def init(self, *args, **kwargs):
        return (function if hasattr(type(self), "_flax_dataclass") else strict)(self, *args, **kwargs)

    return init
