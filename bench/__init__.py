"""Measurements: what engines take to build, and the baselines in PyTorch that they are compared with.

`python -m bench.engines` builds engines for several families and targets. Latency, load and the report made from raw
samples are to come.
"""
