"""Experiments as files; the head comment of each is its recipe."""
