"""`anneal`: the command line. Thin: what it decides is in `anneal_api`, what it runs is in `anneal_trainer`."""
