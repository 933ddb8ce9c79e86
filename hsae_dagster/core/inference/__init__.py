"""Tests, effects, corrections, and what a holdout was asked."""
