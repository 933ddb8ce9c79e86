"""Dagster only: one module per asset that reads, calls a stage, writes and attaches metadata; automation."""
