//! Stamps of records, carried by gossip.

use std::sync::mpsc::Sender;

use foca::{BroadcastHandler, Invalidates};

use super::{
    codec::{self, Error},
    identity::Identity,
    record::Stamp,
};
use crate::NodeId;

/// A node has this record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) node: NodeId,
    pub(super) stamp: Stamp,
}

impl News {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend_from_slice(&self.node.to_bytes());
        codec::put_number(&mut out, self.stamp.generation);
        codec::put_number(&mut out, self.stamp.version);
        out
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Error> {
        let node = NodeId::from_bytes(codec::array(&mut bytes)?);
        let generation = codec::number(&mut bytes)?;
        Ok(Self { node, stamp: Stamp { generation, version: codec::number(&mut bytes)? } })
    }
}

impl Invalidates for News {
    fn invalidates(&self, other: &Self) -> bool {
        self.node == other.node && self.stamp >= other.stamp
    }
}

/// Hands news to [`super::Membership`], which cannot reach into foca, with the member that told it.
///
/// Only who holds a record passes its stamp on, so that whoever hears of it can fetch it from there: what comes from
/// others is never spread at once.
#[derive(Debug)]
pub(super) struct Ear(pub(super) Sender<(News, NodeId)>);

impl BroadcastHandler<Identity> for Ear {
    type Key = News;
    type Error = Error;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Identity>) -> Result<Option<News>, Error> {
        let news = News::decode(data)?;
        let Some(sender) = sender else { return Ok(Some(news)) };
        // The receiver lives as long as foca; nobody listens only while both are dropped.
        let _ = self.0.send((news, sender.node));
        Ok(None)
    }
}
