//! A mesh of two, made the way a user makes one.

use std::{path::Path, time::SystemTime};

use anyhow::{Context, Result, bail};
use fnmesh_mesh::{
    identity::{Admitted, DenyList, Identity, TokenOptions, Tokens, accept, join},
    transport::quic,
};

use crate::ANY;

pub(crate) async fn make(directory: &Path) -> Result<()> {
    let (member, joiner) = (directory.join("server"), directory.join("client"));
    let now = SystemTime::now();
    let identity = Identity::found(&member, now)?;
    let (tokens, denied) = (Tokens::load(&member)?, DenyList::load(&member)?);
    let authority = identity.authority().context("the first node has no authority")?;
    let token = tokens.create(authority, TokenOptions::default(), now)?;
    let listener = quic::bind(ANY, quic::endpoint_config(&identity), Some(identity.server_config()))?;
    let dialler = quic::bind(ANY, Default::default(), None)?;
    let admit = async {
        let incoming = listener.accept().await.context("the endpoint is closed")?;
        let (connection, admitted) = accept(incoming, &identity, &denied).await?;
        let Admitted::Joiner = admitted else { bail!("a joiner was taken for a peer") };
        Ok(join::serve(&connection, &identity, &tokens, &[], now).await?)
    };
    let address = listener.local_addr()?;
    let join = async { Ok(join::join(&dialler, address, &token, &joiner).await?) };
    tokio::try_join!(admit, join)?;
    Ok(())
}
