"""The replication room: one short script a paper, its claim tested on real data through the public API.

`python -m papers run 41` runs one, `python -m papers table` writes README.md from what was found.
"""
