use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    OK, Stop,
    options::{CreateToken, ListTokens, RevokeToken, Token, TokenCommand},
    own,
};
use crate::{
    report,
    socket::Request,
    table::{self, Row},
    terminal::{self, GOOD, NAME, WARNING},
};

pub(super) async fn token(options: Token) -> Result<u8, Stop> {
    match options.command {
        TokenCommand::Create(options) => create(options).await,
        TokenCommand::Ls(options) => list(options).await,
        TokenCommand::Revoke(options) => revoke(options).await,
    }
}

async fn create(options: CreateToken) -> Result<u8, Stop> {
    #[derive(Deserialize)]
    struct Created {
        token: String,
        address: String,
    }
    let request = Request::CreateToken {
        expires_in_s: options.expires.as_secs(),
        uses: NonZeroU32::new(options.uses),
        shares_authority: options.share_authority,
    };
    let result = own::ask(&options.node, request).await?;
    if options.node.json {
        terminal::print(&format!("{result}\n"));
        return Ok(OK);
    }
    let Created { token, address } = read(result)?;
    terminal::print(&format!(
        "{NAME}{token}{NAME:#}\n\njoin with\n  fnmesh serve --mesh 0.0.0.0:7100 --data DIR --join {address} --token {token}\n"
    ));
    Ok(OK)
}

async fn list(options: ListTokens) -> Result<u8, Stop> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        state: String,
        expires_unix_s: u64,
        uses_left: Option<u32>,
        shares_authority: bool,
    }
    let result = own::ask(&options.node, Request::ListTokens).await?;
    if options.node.json {
        terminal::print(&format!("{result}\n"));
        return Ok(OK);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let row = |token: Listed| {
        let last = if token.state == "valid" { GOOD } else { WARNING };
        let left = token.expires_unix_s.checked_sub(now).filter(|left| *left > 0);
        let expires =
            left.map_or_else(|| "over".to_owned(), |left| format!("in {}", report::elapsed(Duration::from_secs(left))));
        let uses = token.uses_left.map_or_else(|| "any number".to_owned(), |left| left.to_string());
        let authority = if token.shares_authority { "shared" } else { "" };
        Row { cells: vec![token.id, uses, expires, authority.to_owned(), token.state], first: NAME, last }
    };
    let tokens: Vec<Listed> = read(result)?;
    if tokens.is_empty() {
        terminal::print("no tokens; `fnmesh token create` makes one\n");
    } else {
        let rows = tokens.into_iter().map(row).collect();
        terminal::print(&table::render(&["TOKEN", "USES LEFT", "EXPIRES", "AUTHORITY", "STATE"], rows));
    }
    Ok(OK)
}

async fn revoke(options: RevokeToken) -> Result<u8, Stop> {
    own::ask(&options.node, Request::RevokeToken { id: options.id.clone() }).await?;
    let text =
        if options.node.json { "null\n".to_owned() } else { format!("{} lets nobody join any more\n", options.id) };
    terminal::print(&text);
    Ok(OK)
}

fn read<T: for<'a> Deserialize<'a>>(result: Value) -> Result<T, Stop> {
    serde_json::from_value(result).map_err(|error| Stop::failed(format!("the answer cannot be read: {error}")))
}
