"""A function that needs HTTP itself: it checks the signature of the raw body."""

import hashlib
import hmac
import os

import fnmesh


def receive(request: fnmesh.Request) -> fnmesh.Response:
    """Takes a signed event; the path below the function is its topic."""
    secret = os.environ["WEBHOOK_SECRET"].encode()
    expected = hmac.new(secret, request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(request.headers.get("x-signature", ""), expected):
        return fnmesh.Response("signature does not match\n", status=401)
    topic = request.path.strip("/")
    return fnmesh.Response({"topic": topic, "event": request.json()}, status=202, headers={"x-topic": topic})
