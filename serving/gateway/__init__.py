"""The HTTP gateway: people and other languages talk to it, it talks to Triton.

`app.create_app` makes the ASGI application, `server.serve` runs it; both need the extra `gateway`.

It holds nothing of its callers: a photo lives as long as its request, inversions lie in Triton's cache under a handle,
and a face is put back only where the photo comes with the edit. So any number of gateways may stand side by side; what
each of them counts for itself are rates and places in its queue. The one exception is `GatewaySettings.photo_seconds`,
for the studio on one's own machine.
"""
