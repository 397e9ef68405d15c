"""The place in a model, or in its training step, of each kernel of a compiled program."""

import re
from collections.abc import Iterable

from zoo.planning.program import Kernel

# The names of scopes, and the place that each one is part of. The innermost known scope of a label decides.
_SCOPES = {
    "optimizer": r"optimizer",
    "loss": r"loss",
    "dropout": r"\w*dropout|Dropout\.__call__|_?threefry\w*",
    "attention": r"\w*attention",
    "feed-forward": r"feed_forward",
    "recurrent layers": r"\w*(cell|recurrent|lstm|gru)\w*|\w*(LSTM|GRU)\w*",
    "norms and residuals": r"\w*_residual|\w*norm",
    "embedding": r"\w*embedding|\w*positions|\w+\._embed",
    "saved activations": r"dynamic_(update_)?index_in_dim",
    "layers, otherwise": r"encoder|decoder|layers",
}
_KNOWN = [(place, re.compile(pattern)) for place, pattern in _SCOPES.items()]
OTHER = "elsewhere"
PLACES = (*_SCOPES, OTHER)


def place(label: str) -> str:
    """The place of a label such as `jit(update)/jvp(GPT)/decoder/while/body/layers/attention/query/dot_general`.

    A stack of layers writes what its backward pass needs by updates of its own scope: they are "saved activations".
    """
    for scope in reversed(label.split("/")):
        name = scope.rstrip(")").rpartition("(")[2]  # of transpose(jvp(name))
        for where, pattern in _KNOWN:
            if pattern.fullmatch(name):
                return where
    return OTHER


def kernel_place(kernel: Kernel) -> str:
    """The place of the kernel's result or, if unknown, of the last instruction fused into it whose place is known."""
    return next((found for found in map(place, kernel.labels) if found != OTHER), OTHER)


def bytes_by_place(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Bytes of a step in each place, in the order of `PLACES`."""
    total = dict.fromkeys(PLACES, 0)
    for kernel in kernels:
        total[kernel_place(kernel)] += kernel.bytes * kernel.times
    return {name: size for name, size in total.items() if size}
