"""The backend `onnxruntime`: model.py runs inside Triton, where edgedit is not installed."""
