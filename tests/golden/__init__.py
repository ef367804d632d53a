"""Recorded vectors: values and gradients of reference implementations, run against ours by `python -m tests.golden FOLDER`."""
