"""Training in PyTorch: stages are defined in `stages`, configured in `recipes` and run in `running`.

The other rooms are what stages are made of (`networks`, `methods`, `losses`, `importers`) and what is said of their
outcome (`measuring`).
"""
