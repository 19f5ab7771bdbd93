"""The operator: watches FineTuneJobs and RLHFJobs and makes them true."""
