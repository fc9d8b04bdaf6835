"""Benchmarks: claims of speed as ratios in one run, against a peer or the machine's limit."""
