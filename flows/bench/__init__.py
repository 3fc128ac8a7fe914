"""Benchmarks that anyone can run again: `shortfall bench NAME --json`."""
