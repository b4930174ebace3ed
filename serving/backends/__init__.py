"""Triton backends in Python: folders that a server's `--backend-directory` gets a copy of."""
