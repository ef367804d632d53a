"""Benchmarks against the peers: `python -m benchmarks [NAME ...] [--json FILE] [--quick]`."""
