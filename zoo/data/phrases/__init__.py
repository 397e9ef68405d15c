"""Parallel phrases made from Unicode CLDR: pairs without a file."""
