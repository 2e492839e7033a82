"""The obstacle course that a point (AvoidPoint) and a robot's stick (Avoid) find their way through."""
