"""Avoid: a Panda's stick finds its way through three rows of posts in simulation; 24 ways lead to the finish line."""
