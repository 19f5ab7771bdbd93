"""One file a training method, read from top to bottom; the training loop itself is TRL's."""
