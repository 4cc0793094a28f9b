"""A function that needs HTTP itself: it checks the signature of the raw body."""

import hashlib
import hmac
import json
import os

import fnmesh


def receive(request: fnmesh.Request) -> fnmesh.Response:
    """Takes a signed event; the path below the function is its topic."""
    secret = os.environ["WEBHOOK_SECRET"].encode()
    expected = hmac.new(secret, request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(request.headers.get("x-signature", ""), expected):
        return fnmesh.Response(status=401, body="signature does not match\n")
    receipt = {"topic": request.path.strip("/"), "event": json.loads(request.body)}
    return fnmesh.Response(
        status=202,
        headers={"content-type": "application/json", "x-topic": receipt["topic"]},
        body=json.dumps(receipt),
    )
