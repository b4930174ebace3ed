"""Measurements: what engines take to build, and the baselines in PyTorch that they are compared with.

`python -m bench.engines` builds engines for several families and targets; `python -m bench.gpu` does everything that
waits for a GPU; `python -m bench.batch` times batches; `edgedit bench` holds the others. Timing, the machine, random
weights and figures stand here, for all.
"""
