"""The speed of a bundle's graphs: every runtime and precision of this machine beside PyTorch, in one run.

A claim of speed is a ratio inside one run, against `candidates.BASE`; `measure` makes such a run, `compare` holds two
against each other, and `bench.report` draws them.
"""
