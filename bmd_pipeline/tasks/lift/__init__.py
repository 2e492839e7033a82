"""Lift: a Panda lifts a bar by either of its two ends."""
