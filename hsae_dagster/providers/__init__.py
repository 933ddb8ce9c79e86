"""Models that are asked: embedders, interpreters, annotators."""
