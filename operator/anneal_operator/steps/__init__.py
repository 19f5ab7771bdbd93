"""The steps of a pass, in order: accept, prepare, train, finish. Each owns one condition."""
