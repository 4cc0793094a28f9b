"""What functions may use of the node that runs them."""

from fnmesh._core import invocation_id, remaining, traceparent

__all__ = ["Cancelled", "Request", "Response", "invocation_id", "remaining", "traceparent"]


class Cancelled(BaseException):
    """Raised in a function whose caller no longer waits, at whatever it does just then."""


def __getattr__(name):
    # Only functions that speak HTTP themselves need these.
    if name in ("Request", "Response"):
        from fnmesh import _http

        value = globals()[name] = getattr(_http, name)
        return value
    raise AttributeError(f"module 'fnmesh' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
