"""What is measured: each module measures some rows of docs/benchmarks.md and returns them."""
