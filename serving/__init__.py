"""Serving with Triton Inference Server: model repository, development server, clients, gateway, deployment.

No torch here (a test proves it); `tritonclient` and the gateway's packages are imported only by what needs them.
"""
