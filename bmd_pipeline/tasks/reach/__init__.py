"""Reach: a Panda reaches round a post, on its left or its right, for a goal behind it."""
