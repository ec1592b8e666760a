"""The only door from a surface to a run."""
