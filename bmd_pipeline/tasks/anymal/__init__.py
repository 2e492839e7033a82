"""Anymal: a quadruped walks to one of four beacons around it, forward, left, back or right."""
