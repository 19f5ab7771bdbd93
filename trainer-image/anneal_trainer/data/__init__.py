"""From sources to token ids and labels: one path for every method, for `prepare` in a pod and for `anneal run`."""
