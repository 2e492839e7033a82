"""Demonstrations: the store they live in, and how experts fill it."""
