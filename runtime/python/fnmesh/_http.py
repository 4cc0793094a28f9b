"""HTTP as functions see it that ask for it."""

from collections.abc import Mapping

from fnmesh import _core


class Headers(Mapping):
    """Headers by name, whatever its case: the first value of each; ``get_all`` has the others too."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs):
        self._pairs = [(name.lower(), value) for name, value in pairs]

    def __getitem__(self, name):
        name = name.lower()
        for other, value in self._pairs:
            if other == name:
                return value
        raise KeyError(name)

    def __iter__(self):
        return iter(dict(self._pairs))

    def __len__(self):
        return len(dict(self._pairs))

    def __repr__(self):
        return f"Headers({self._pairs!r})"

    def get_all(self, name):
        """All values of this name, in order of arrival."""
        name = name.lower()
        return [value for other, value in self._pairs if other == name]

    def items_all(self):
        """All names with their values, in order of arrival."""
        return list(self._pairs)


class Request:
    """The HTTP request that a function with a parameter of this type was called by."""

    __slots__ = ("method", "url", "path", "query_string", "headers", "body", "_query")

    def __init__(self, head, body):
        #: ``GET``, ``POST``, ...
        self.method = head["method"]
        #: The whole URL as the client sent it.
        self.url = head["url"]
        #: What follows the function's name in the path; empty or begins with ``/``.
        self.path = head["path"]
        #: The query as it was sent, without ``?``.
        self.query_string = head["query"]
        #: A mapping that ignores the case of names.
        self.headers = Headers(head["headers"])
        #: The body as bytes.
        self.body = body
        self._query = None

    def __repr__(self):
        return f"<Request {self.method} {self.url}>"

    @property
    def query_list(self):
        """All names of the query with their values, in order."""
        if self._query is None:
            from urllib.parse import parse_qsl

            self._query = parse_qsl(self.query_string, keep_blank_values=True)
        return list(self._query)

    @property
    def query(self):
        """The first value of each name of the query."""
        return dict(reversed(self.query_list))

    @property
    def cookies(self):
        """The first value of each cookie."""
        cookies = {}
        for header in self.headers.get_all("cookie"):
            for pair in header.split(";"):
                name, separator, value = pair.strip().partition("=")
                if separator:
                    if len(value) > 1 and value[0] == value[-1] == '"':
                        value = value[1:-1]
                    cookies.setdefault(name, value)
        return cookies

    def text(self):
        """The body as text, by the charset of its content type, else UTF-8."""
        charset = "utf-8"
        for parameter in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = parameter.strip().partition("=")
            if name.lower() == "charset":
                charset = value.strip('"')
        return self.body.decode(charset)

    def json(self):
        """The body as JSON, read strictly. ValueError says what is wrong with it, and where."""
        return _core.parse_json(self.body)


class Response:
    """An HTTP answer of one's own. The body is bytes, text, an iterator of either, or any value, which goes as JSON."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, body=None, status=200, headers=None):
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"status is {status!r}, which is not a number from 200 to 599")
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        self.status = int(status)
        self.headers = [_header(name, value) for name, value in pairs]
        self.body = body

    def __repr__(self):
        return f"<Response {self.status}>"

    @property
    def head(self):
        """Status and headers as the worker protocol has them."""
        return {"status": self.status, "headers": [list(pair) for pair in self.headers]}


def _header(name, value):
    pair = str(name), str(value)
    for text in pair:
        if any(character in text for character in "\r\n\0"):
            raise ValueError(f"header {pair[0]!r} has a line break or NUL in its name or value")
    return pair
