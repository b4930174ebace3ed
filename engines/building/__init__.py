"""The building of engines from a bundle's graphs: TensorRT and TensorRT-RTX through one code path, and ONNX Runtime.

builder.py   one strongly typed ONNX graph to one serialised engine
timing.py    the timing cache between builds
proof.py     what the built network's own tensor types say of its precision
staging.py   the engine folder: staged, locked, published by one rename
reuse.py     the other graphs of a folder that is built again
refit.py     new weights for an engine that is there
build.py     all of it, for the graphs of a bundle
certificate.py, gates.py  how close to FP32 an engine's outputs are, and how close they must be
fidelity.py, similarity.py  the figures of that
devices.py   what the vendor says of its devices
estimate.py  floors and memory of the pipelines on a device, before anything is built
"""
