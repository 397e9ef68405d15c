"""Decoding for every model of the zoo: it needs only `prefill`, `decode_step` and `reorder`."""
