"""Batches: the arrays that models read, their shapes, and the streams that training and evaluation take."""
