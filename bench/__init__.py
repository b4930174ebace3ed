"""Measurements: what engines take to build, and the baselines in PyTorch that they are compared with.

`bench.latency` times a bundle in every runtime and `bench.report` draws results, both for `edgedit bench`, which holds
most. `python -m bench.guard` is for continuous integration, `python -m bench.engines` builds engines for several
families and targets, `python -m bench.batch` times batches, `python -m bench.gpu` does everything that waits for a GPU.
Timing, the machine, random weights and figures stand here, for all.
"""
