"""Tests with real processes: runs that are killed, a live Dagster, Ray. Slow, and stopped by pid."""
