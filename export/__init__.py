"""The export of networks in PyTorch as a verified bundle of ONNX graphs."""
