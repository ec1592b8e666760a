"""Side-by-side measurements; each backs its claims with a file in `benchmarks/results/`."""
