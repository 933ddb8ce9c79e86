"""How fast each stage is beside hypothesaes 2.0.1, row by row: `python -m benchmarks.speed`, or `make bench`."""
