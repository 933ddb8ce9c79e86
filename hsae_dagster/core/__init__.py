"""The method: pure functions on arrays and frames. No Dagster, no network, no disk."""
