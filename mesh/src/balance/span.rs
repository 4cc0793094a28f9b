use crate::table::Peer;

/// Peers in a row, or all but those.
#[derive(Clone, Copy)]
pub(super) struct Span {
    start: usize,
    end: usize,
    total: usize,
    is_inside: bool,
}

impl Span {
    pub(super) fn all(peers: &[Peer]) -> Self {
        Self { start: 0, end: peers.len(), total: peers.len(), is_inside: true }
    }

    /// Those of `zone` among `peers`, which are sorted by zone; all of them, if there is none.
    pub(super) fn of_zone(peers: &[Peer], zone: &str) -> Self {
        let start = peers.partition_point(|peer| *peer.zone < *zone);
        let end = start + peers[start..].partition_point(|peer| *peer.zone == *zone);
        if start == end { Self::all(peers) } else { Self { start, end, ..Self::all(peers) } }
    }

    pub(super) fn others(self) -> Self {
        Self { is_inside: !self.is_inside, ..self }
    }

    pub(super) fn len(self) -> usize {
        let inside = self.end - self.start;
        if self.is_inside { inside } else { self.total - inside }
    }

    pub(super) fn nth(self, place: usize) -> usize {
        match (self.is_inside, place < self.start) {
            (true, _) => self.start + place,
            (false, true) => place,
            (false, false) => place + self.end - self.start,
        }
    }
}
