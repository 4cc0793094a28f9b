//! The head of a request, in whatever version of HTTP it came.

use fnmesh_invoke::RequestHead;
use http::{HeaderMap, Method, Uri, request::Parts};

use crate::strict::Field;

/// What a request says before its body. Borrows from the bytes that came.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: Method,
    /// Percent-encoded. Begins with `/`, but for `OPTIONS *` and `CONNECT`.
    pub(crate) path: &'a str,
    /// What follows the `?`; empty if there is none.
    pub(crate) query: &'a str,
    /// Path and query as they came.
    target: &'a str,
    /// Host and port, where the target names them.
    authority: Option<&'a str>,
    fields: Fields<'a>,
}

/// Where the header fields are.
#[derive(Debug)]
pub(crate) enum Fields<'a> {
    /// In the bytes of a head.
    Http1(&'a [u8], &'a [Field]),
    /// In hyper's map.
    Http2(&'a HeaderMap),
}

impl<'a> Head<'a> {
    /// What hyper has read.
    pub(crate) fn of_parts(parts: &'a Parts) -> Self {
        Self::new(parts.method.clone(), &parts.uri, Fields::Http2(&parts.headers))
    }

    pub(crate) fn new(method: Method, uri: &'a Uri, fields: Fields<'a>) -> Self {
        Self {
            method,
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            target: uri.path_and_query().map_or("/", |target| target.as_str()),
            authority: uri.authority().map(|authority| authority.as_str()),
            fields,
        }
    }

    /// A request for a path that may have a query behind it.
    pub(crate) fn of_path(method: Method, target: &'a str, fields: Fields<'a>) -> Self {
        let (path, query) = match memchr::memchr(b'?', target.as_bytes()) {
            Some(mark) => (&target[..mark], &target[mark + 1..]),
            None => (target, ""),
        };
        Self { method, path, query, target, authority: None, fields }
    }

    /// Calls `see` with each field; names may have capitals.
    pub(crate) fn each(&self, mut see: impl FnMut(&'a [u8], &'a [u8])) {
        match self.fields {
            Fields::Http1(head, fields) => fields.iter().for_each(|it| see(it.name.of(head), it.value.of(head))),
            Fields::Http2(map) => map.iter().for_each(|(name, value)| see(name.as_ref(), value.as_bytes())),
        }
    }

    /// The first value of a field, whose name is given in lower case.
    pub(crate) fn field(&self, wanted: &str) -> Option<&'a [u8]> {
        let mut found = None;
        self.each(|name, value| {
            if found.is_none() && name.eq_ignore_ascii_case(wanted.as_bytes()) {
                found = Some(value);
            }
        });
        found
    }

    /// For a function that takes the request itself; `rest` is what its path has behind its name.
    pub(crate) fn to_owned(&self, rest: &str) -> RequestHead {
        let host = || self.field("host").map(text);
        let authority = self.authority.map(str::to_owned).or_else(host).unwrap_or_default();
        let mut headers = Vec::new();
        self.each(|name, value| headers.push((text(name).to_ascii_lowercase(), text(value))));
        RequestHead {
            method: self.method.as_str().to_owned(),
            url: format!("http://{authority}{}", self.target),
            path: rest.to_owned(),
            query: self.query.to_owned(),
            headers,
        }
    }
}

/// Header bytes that are not UTF-8 are Latin-1, as they were before RFC 7230.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_what_follows_the_first_mark() {
        let fields = || Fields::Http1(b"", &[]);
        let head = Head::of_path(Method::GET, "/a?b?c", fields());
        assert_eq!((head.path, head.query), ("/a", "b?c"));
        let head = Head::of_path(Method::GET, "/a", fields());
        assert_eq!((head.path, head.query), ("/a", ""));
        let uri = Uri::from_static("http://h:1/a?b");
        let head = Head::new(Method::GET, &uri, fields());
        assert_eq!((head.path, head.query), ("/a", "b"));
        assert_eq!(head.to_owned("").url, "http://h:1/a?b");
    }

    #[test]
    fn fields_are_found_whatever_their_capitals() {
        let mut map = HeaderMap::new();
        map.append("x-a", "1".parse().unwrap());
        map.append("x-a", "2".parse().unwrap());
        let head = Head::of_path(Method::GET, "/", Fields::Http2(&map));
        assert_eq!(head.field("x-a"), Some(&b"1"[..]));
        assert_eq!(head.field("x-b"), None);
    }
}
