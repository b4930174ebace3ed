"""From networks in PyTorch to a verified bundle of ONNX graphs."""
