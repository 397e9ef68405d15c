"""What the configs of translation share: their argument, `SRC-TGT[,MODEL]`, and the models at small sizes."""

from typing import Any

from zoo.errors import UserError, nearest

# For small data: the size that learns well from it.
SMALL_MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"size": "tiny"},
    "rnnsearch": {"size": "small"},
    "cho": {"size": "small"},
    "seq2seq": {"size": "small"},
}


def languages(argument: str) -> tuple[str, str]:
    """The two languages of `SRC-TGT`."""
    source, dash, target = argument.partition("-")
    if not (dash and source and target):
        raise UserError(f"config argument {argument!r}: write two languages as en-fr")
    return source, target


def languages_and_model(argument: str) -> tuple[str, str, str]:
    """The two languages and the model of `SRC-TGT[,MODEL]`; the model defaults to a Transformer."""
    pair, _, model = argument.partition(",")
    model = model or "transformer"
    if model not in SMALL_MODELS:
        raise UserError(f"config argument {argument!r}: no model {model!r}: {nearest(model, SMALL_MODELS)}")
    return *languages(pair), model


def named(config: str, argument: str, default: str) -> str:
    """The name of an experiment, by which its working directory is called: the config's, and what is not default."""
    return config if argument in ("", default) else f"{config}-{argument.replace(',', '-')}"
