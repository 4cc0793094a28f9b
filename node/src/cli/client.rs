use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response, Uri,
    header::{HOST, HeaderMap},
    uri::Authority,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::{net::TcpStream, time};

use super::Stop;

/// A node on the same machine or network answers a connect at once, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The control endpoints answer from memory.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one client command to its end on this thread.
pub(super) fn block_on(command: impl Future<Output = Result<u8, Stop>>) -> Result<u8, Stop> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::failed(format!("no runtime: {error}")))?
        .block_on(command)
}

/// What a node lists.
#[derive(Debug)]
pub(super) struct List {
    /// As it was sent.
    pub(super) json: Box<RawValue>,
    /// What is said of one that cannot be read.
    complaint: String,
}

impl List {
    /// What is listed.
    ///
    /// # Errors
    /// A failed [`Stop`] when it is something else.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, Stop> {
        serde_json::from_str(self.json.get()).map_err(|error| Stop::failed(format!("{}: {error}", self.complaint)))
    }
}

/// A node somewhere, by its URL.
#[derive(Debug)]
pub(super) struct Client {
    url: String,
    authority: Authority,
    /// Path of the URL without its last slash, for a node behind a proxy.
    prefix: String,
}

impl Client {
    /// Reads `http://host:port[/prefix]`, or `host:port`.
    ///
    /// # Errors
    /// A usage [`Stop`] that names the URL.
    pub(super) fn new(url: &str) -> Result<Self, Stop> {
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let bad = |why: &str| Stop::usage(format!("--node {url:?} is no node's URL ({why}); write http://host:port"));
        let uri: Uri = full.parse().map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("only http is spoken here"));
        }
        let authority = uri.authority().cloned().ok_or_else(|| bad("it has no host"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { url: full.trim_end_matches('/').to_owned(), authority, prefix })
    }

    /// The URL, without a slash at its end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends one request and returns as soon as the answer's head is there.
    ///
    /// # Errors
    /// An unreachable [`Stop`] when nobody answers, a failed one when the connection breaks.
    pub(super) async fn send(
        &self,
        method: http::Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Stop> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.prefix)
            .parse()
            .map_err(|error| Stop::usage(format!("{path:?} cannot be part of a URL: {error}")))?;
        *request.headers_mut() = headers;
        let host = self.authority.as_str().parse().map_err(|_| Stop::usage("the node's host name is not ASCII"))?;
        request.headers_mut().insert(HOST, host);
        let broken = |error: hyper::Error| Stop::failed(format!("{} broke off the connection: {error}", self.url));
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await.map_err(broken)?;
        // The command ends with the process, and this with it.
        tokio::spawn(async move { drop(connection.await) });
        sender.send_request(request).await.map_err(broken)
    }

    /// The body of a control endpoint that answers 200 with JSON.
    ///
    /// # Errors
    /// As [`Client::send`]; a failed [`Stop`] for any other answer.
    pub(super) async fn control(&self, path: &str) -> Result<Bytes, Stop> {
        let exchange = async {
            let response = self.send(http::Method::GET, path, HeaderMap::new(), Vec::new()).await?;
            let status = response.status();
            if !status.is_success() {
                return Err(Stop::failed(format!("{}{path} answers {status}; is it a fnmesh node?", self.url)));
            }
            let body = response.into_body().collect().await;
            body.map(http_body_util::Collected::to_bytes)
                .map_err(|error| Stop::failed(format!("{} broke off its answer: {error}", self.url)))
        };
        time::timeout(CONTROL_TIMEOUT, exchange)
            .await
            .map_err(|_| Stop::unreachable(format!("{} did not answer within {CONTROL_TIMEOUT:?}", self.url)))?
    }

    /// The list at a control endpoint; `what` says of what.
    ///
    /// # Errors
    /// As [`Client::control`]; a failed [`Stop`] when the answer is not JSON.
    pub(super) async fn list(&self, path: &str, what: &str) -> Result<List, Stop> {
        let body = self.control(path).await?;
        let complaint = format!("{}{path} answers no list of {what}", self.url);
        match serde_json::from_slice(&body) {
            Ok(json) => Ok(List { json, complaint }),
            Err(error) => Err(Stop::failed(format!("{complaint}: {error}"))),
        }
    }

    async fn connect(&self) -> Result<TcpStream, Stop> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = (host, self.authority.port_u16().unwrap_or(80));
        let unreachable = |why: String| {
            Stop::unreachable(format!(
                "no node answers at {}: {why}\nStart one with `fnmesh serve DIR`, or name another with --node URL or FNMESH_NODE",
                self.url
            ))
        };
        match time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it the call still works, only slower.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_forms_are_read() {
        for (url, host, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", ""),
            ("localhost:9000", "localhost:9000", ""),
            ("http://[::1]:80/", "[::1]:80", ""),
            ("http://proxy/mesh/", "proxy", "/mesh"),
        ] {
            let client = Client::new(url).unwrap();
            assert_eq!((client.authority.as_str(), client.prefix.as_str()), (host, prefix));
        }
    }

    #[test]
    fn other_urls_are_usage_errors() {
        for url in ["https://host", "ftp://host", "", "http://", "a b"] {
            let stop = Client::new(url).unwrap_err();
            assert_eq!(stop.code, super::super::USAGE, "{url}: {}", stop.message);
        }
    }
}
