"""The operator: watches FineTuneJobs and makes them true."""
