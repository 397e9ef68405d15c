"""What the configs of translation share: reading their argument, `SRC-TGT[,MODEL]`."""

from zoo.errors import UserError


def languages(argument: str) -> tuple[str, str]:
    source, dash, target = argument.partition("-")
    if not (dash and source and target):
        raise UserError(f"config argument {argument!r}: write two languages as en-fr")
    return source, target
