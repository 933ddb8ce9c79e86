"""Figures (one function per chart) and the page that people read."""
