"""Scores against the length of the source sentence."""

from collections.abc import Mapping, Sequence
from os import PathLike

from zoo.plotting.pictures import name_entries, panel, picture


def draw_by_length(
    bins: Sequence[tuple[int, int, int]],
    lines: Mapping[str, Sequence[float]],
    title: str,
    caption: str,
    path: str | PathLike,
) -> None:
    """Write a picture after Bahdanau et al. 2015, Figure 2: for each name of `lines`, a line with its BLEU in every
    bin; below, the number of sentences in each bin. A bin is its shortest and longest source in words, and its
    sentences."""
    with picture(path, *lines, title, caption, size=(8, 5.5)) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        middles = [(first + last) / 2 for first, last, _ in bins]
        for number, values in enumerate(lines.values()):
            above.plot(middles, values, marker="o", markersize=4, label=str(number))
        above.set_ylim(0, min(105.0, 1.15 * max(max(values) for values in lines.values()) + 1))
        panel(above, title, y="BLEU")
        name_entries(above.legend(), list(lines))

        counts = [count for _, _, count in bins]
        bars = below.bar(middles, counts, [0.9 * (last - first + 1) for first, last, _ in bins], color="0.85")
        below.bar_label(bars, [f"{count:,}" for count in counts], fontsize="x-small", color="0.3")
        below.set_ylim(0, 1.4 * max(counts))
        below.set_ylabel("sentences")
        below.set_yticks([])
        below.set_xlabel("words of the source")
        below.set_xticks(middles, [f"{first}–{last}" if last > first else str(first) for first, last, _ in bins])
        figure.supxlabel(caption, fontsize="x-small", color="0.3", parse_math=False)
