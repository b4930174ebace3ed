"""The production image's own program: builds TensorRT engines where they are served, then becomes tritonserver.

Everything here runs in the serving image on Python 3.12 with `engines.store` and the standard library alone (and
TensorRT's bindings, where the image has them): `python3 -m serving.deploy` starts, `python3 -m serving.deploy.probe`
asks whether it serves.
"""
