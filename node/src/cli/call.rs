use std::io::{self, Read as _};

use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time;

use super::{Stop, answer, arguments, client::Client, options::Call};

/// What a path segment cannot carry as it is (RFC 3986, 3.3).
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

pub(super) async fn call(options: Call) -> Result<u8, Stop> {
    let client = Client::new(&options.target.node)?;
    let path = path(&options.function)?;
    let body = match &options.data {
        Some(data) => arguments::data(data, options.content_type, read_stdin),
        None => arguments::named(&options.arguments),
    };
    let body = body.map_err(Stop::usage)?;
    let mut headers = HeaderMap::new();
    if let Some(content_type) = &body.content_type {
        headers.insert(CONTENT_TYPE, header("--content-type", content_type)?);
    }
    if let Some(accept) = &options.accept {
        headers.insert(ACCEPT, header("--accept", accept)?);
    }
    let exchange = async {
        let response = client.send(Method::POST, &path, headers, body.bytes).await?;
        answer::print(response, options.include).await
    };
    match options.timeout {
        // Dropping the exchange closes the connection, which cancels the call on the node.
        Some(timeout) => time::timeout(timeout, exchange)
            .await
            .map_err(|_| Stop::failed(format!("{} did not answer within --timeout {timeout:?}", options.function)))?,
        None => exchange.await,
    }
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn header(option: &str, value: &str) -> Result<HeaderValue, Stop> {
    value.parse().map_err(|_| Stop::usage(format!("{option} {value:?} cannot be a header's value")))
}

/// The path of `app/function`, with whatever follows it.
fn path(function: &str) -> Result<String, Stop> {
    let name = function.trim_start_matches('/');
    match name.split_once('/') {
        Some((app, rest)) if !app.is_empty() && !rest.is_empty() => {
            Ok(format!("/{}", utf8_percent_encode(name, SEGMENT)))
        }
        _ => Err(Stop::usage(format!("{function:?} names no function; write APP/FUNCTION, as `fnmesh ls` lists them"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_name_becomes_its_path() {
        assert_eq!(path("text/merge").unwrap(), "/text/merge");
        assert_eq!(path("/web/page/a b?").unwrap(), "/web/page/a%20b%3F");
    }

    #[test]
    fn name_without_app_is_a_usage_error() {
        for name in ["merge", "text/", "/merge", ""] {
            assert_eq!(path(name).unwrap_err().code, super::super::USAGE, "{name}");
        }
    }
}
