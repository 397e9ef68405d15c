"""From text to batches, in the order in which the data go:

text -> examples (or `phrases`, which need no file) -> `tokenizers` -> ids -> batches.
"""
