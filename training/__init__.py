"""Training in PyTorch: networks, losses, data, stages, directions, importers, and the methods of Table 5."""
