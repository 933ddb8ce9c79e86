"""Around the assets: project and partitions, executors, runs, checks."""
