"""Demonstrations: the store they live in, how experts fill it, and the windows policies learn from."""
