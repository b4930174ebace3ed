"""Measurements: latency, accuracy against PyTorch, load, and the report made from their raw samples.

Not written yet: it comes after the engines and serving, which it measures.
"""
