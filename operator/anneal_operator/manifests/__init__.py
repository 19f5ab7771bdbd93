"""From a plan to the objects that carry it out: one builder a kind, each a pure function that returns a dictionary."""
