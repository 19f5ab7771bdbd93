"""What runs in Anneal's trainer pods and behind `anneal run`."""
