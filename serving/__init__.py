"""Serving with Triton Inference Server: model repository, local server, client and web page.

Not written yet: it comes after the engines, whose bundles it serves. No torch here.
"""
