"""Benchmarks: `python -m bench` runs all of them and writes docs/benchmarks.md; each file also runs by itself."""
