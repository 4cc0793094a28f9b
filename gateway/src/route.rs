use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::percent_decode_str;

use crate::refusal::Refusal;

/// First path segments that are never apps: these, and all that begin with `_`.
const RESERVED: [&str; 4] = ["api", "rpc", "async", "validate"];

/// What a path names. Borrows from it; allocates only where it is percent-encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/`
    Home,
    /// `/_/...`: what follows.
    Control(&'a str),
    /// `/rpc`
    Rpc,
    /// `/{app}`
    App(Cow<'a, str>),
    /// `/{app}/{function}...`
    Function(FunctionPath<'a>),
}

/// The path of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FunctionPath<'a> {
    pub(crate) app: Cow<'a, str>,
    /// `function` or `module.function`.
    pub(crate) name: Cow<'a, str>,
    /// What follows, still percent-encoded: empty or begins with `/`.
    pub(crate) rest: &'a str,
}

impl<'a> Route<'a> {
    /// Reads the path of a request.
    pub(crate) fn of(path: &'a str) -> Result<Self, Refusal> {
        let Some(path) = path.strip_prefix('/') else { return Ok(Self::Home) };
        let (first, below) = cut(path);
        if first.is_empty() {
            return if below.is_empty() { Ok(Self::Home) } else { Err(nothing_at(path)) };
        }
        if first.starts_with('_') || RESERVED.contains(&first) {
            return match (first, below) {
                ("_", rest) => Ok(Self::Control(rest.strip_prefix('/').unwrap_or(rest))),
                ("rpc", "") => Ok(Self::Rpc),
                _ => Err(nothing_at(path)),
            };
        }
        let app = decode(first)?;
        let (name, rest) = cut(below.strip_prefix('/').unwrap_or(below));
        if name.is_empty() {
            return if rest.is_empty() { Ok(Self::App(app)) } else { Err(nothing_at(path)) };
        }
        Ok(Self::Function(FunctionPath { app, name: decode(name)?, rest }))
    }
}

/// The first segment, and what follows it with its slash.
fn cut(path: &str) -> (&str, &str) {
    path.split_at(memchr(b'/', path.as_bytes()).unwrap_or(path.len()))
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Refusal::bad_request(format!("path segment {segment:?} is not UTF-8 once percent-decoded")))
}

fn nothing_at(path: &str) -> Refusal {
    Refusal::not_found(format!("nothing is served at /{path}; functions are at /app/function"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function<'a>(app: &'a str, name: &'a str, rest: &'a str) -> Route<'a> {
        Route::Function(FunctionPath { app: app.into(), name: name.into(), rest })
    }

    #[test]
    fn paths_name_what_they_say() {
        for (path, route) in [
            ("/", Route::Home),
            ("", Route::Home),
            ("*", Route::Home),
            ("/rpc", Route::Rpc),
            ("/_/health", Route::Control("health")),
            ("/_/apps/a", Route::Control("apps/a")),
            ("/_", Route::Control("")),
            ("/text", Route::App("text".into())),
            ("/text/", Route::App("text".into())),
            ("/text/merge", function("text", "merge", "")),
            ("/text/mod.merge", function("text", "mod.merge", "")),
            ("/text/merge/", function("text", "merge", "/")),
            ("/text/merge/a%20b//c", function("text", "merge", "/a%20b//c")),
            ("/t%65xt/na%C3%AFve", function("text", "naïve", "")),
            ("/a%2Fb/c", function("a/b", "c", "")),
        ] {
            assert_eq!(Route::of(path), Ok(route), "{path}");
        }
    }

    #[test]
    fn reserved_names_are_no_apps() {
        for path in ["/api/x", "/async/a/b", "/validate", "/rpc/x", "/_x/y", "/_x", "//a", "/a//b"] {
            assert_eq!(Route::of(path).unwrap_err().status, 404, "{path}");
        }
    }

    #[test]
    fn segments_that_are_not_utf8_are_refused() {
        assert_eq!(Route::of("/a/%ff").unwrap_err().status, 400);
    }

    #[test]
    fn plain_paths_do_not_allocate() {
        let Ok(Route::Function(path)) = Route::of("/text/merge") else { panic!("not a function") };
        assert!(matches!((path.app, path.name), (Cow::Borrowed(_), Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn any_path_is_answered(path in "/?[a-z_%/.0-9é]{0,20}") {
            if let Ok(Route::Function(found)) = Route::of(&path) {
                prop_assert!(path.ends_with(found.rest));
                prop_assert!(!found.app.is_empty() && !found.name.is_empty());
            }
        }
    }
}
