"""The steps of a pass, in order: accept, origin, preview, prepare, fit, admit, train, finish."""
