//! The side of commands.

use std::{fs, io, path::Path};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{Answer, PATIENCE, Request, Signed, key_path, path};

/// Asks the node with this data; the result, or what the node or the attempt says. `tell` hears the steps.
pub(crate) async fn ask(data: &Path, request: Request, mut tell: impl FnMut(&str)) -> Result<Value, AskError> {
    let path = path(data);
    let unreachable =
        |error: io::Error| AskError::Unreachable(format!("no node answers at {}: {error}", path.display()));
    let connect = async {
        let mut stream = UnixStream::connect(&path).await?;
        let key = fs::read_to_string(key_path(data))?;
        stream.write_all(format!("{}\n", json!(Signed { key, request })).as_bytes()).await?;
        Ok(stream)
    };
    let stream = timeout(PATIENCE, connect).await.unwrap_or_else(|late| Err(late.into())).map_err(unreachable)?;
    let mut lines = BufReader::new(stream).lines();
    // The node bounds what it does.
    while let Some(line) = lines.next_line().await.map_err(unreachable)? {
        match serde_json::from_str(&line) {
            Ok(Answer::Step(step)) => tell(&step),
            Ok(Answer::Result(result)) => return Ok(result),
            Ok(Answer::Error(error)) => return Err(AskError::Refused(error)),
            Err(error) => return Err(AskError::Refused(format!("the answer cannot be read: {error}"))),
        }
    }
    Err(AskError::Refused("the node ended before it answered".to_owned()))
}

/// Why a request has no result.
#[derive(Debug)]
pub(crate) enum AskError {
    /// Nobody listens.
    Unreachable(String),
    /// The node said no.
    Refused(String),
}
