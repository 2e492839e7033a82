"""AvoidPoint: a point finds its way through three rows of posts; 24 ways lead to the finish line."""
