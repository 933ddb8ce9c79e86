"""Tests with real processes: runs that are killed, a live Dagster, Ray and Celery. Slow, and stopped by pid."""
