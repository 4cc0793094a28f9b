//! What reads bytes of strangers, for fuzz targets and property tests. Not for use: it may change
//! at any time. Nothing here may panic, whatever it is given.

use bytes::Bytes;
use fnmesh_invoke::{Function, Payload};
use http::request::Parts;

use crate::{
    args,
    headers::Hints,
    refusal::Refusal,
    request,
    route::Route,
    rpc::request::{Call, Members, members},
    strict::{Framing, Head},
};

/// Reads `input` as requests, cut at `cut`; says how many bytes pass and whether the next one is
/// refused.
pub fn framing(input: &[u8], cut: usize) -> (usize, bool) {
    const LIMIT: usize = 16 * 1024;
    let mut requests = Requests::new(LIMIT);
    let mut passed = 0;
    for end in [cut.min(input.len()), input.len()] {
        match requests.pass(&input[passed..end]) {
            (count, Ok(())) => passed += count,
            (count, Err(_)) => return (passed + count, true),
        }
    }
    (passed, false)
}

/// Follows the requests of a connection, as the connection itself does between its reads.
pub(crate) struct Requests {
    limit: usize,
    head: Head,
    body: Option<Framing>,
}

impl Requests {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, head: Head::default(), body: None }
    }

    #[cfg(test)]
    pub(crate) fn is_in_body(&self) -> bool {
        self.body.is_some()
    }

    /// How many bytes of `input` are well-formed and whole, and why the next one is not.
    pub(crate) fn pass(&mut self, input: &[u8]) -> (usize, Result<(), Refusal>) {
        let mut passed = 0;
        loop {
            match self.step(&input[passed..]) {
                Ok(0) => return (passed, Ok(())),
                Ok(count) => passed += count,
                Err(why) => return (passed, Err(why)),
            }
        }
    }

    fn step(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let count = match &mut self.body {
            None => {
                let Some((length, body)) = self.head.check(input, self.limit)? else { return Ok(0) };
                // Whatever passes can be read.
                drop(request::Head::to_owned(&self.head.read(&input[..length]), ""));
                self.head.reset();
                self.body = Some(body);
                length
            }
            Some(Framing::Length(left)) => {
                let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= count as u64;
                count
            }
            Some(Framing::Chunked(chunked)) => chunked.check(input)?,
        };
        let over = match &self.body {
            None => false,
            Some(Framing::Length(left)) => *left == 0,
            Some(Framing::Chunked(chunked)) => chunked.is_done(),
        };
        if over {
            self.body = None;
        }
        Ok(count)
    }
}

/// Whether `path` leads somewhere.
pub fn route(path: &str) -> bool {
    Route::of(path).is_ok()
}

/// The arguments that a request gives to `function`.
pub fn arguments(function: &Function, head: &Parts, body: Bytes) -> Option<Payload> {
    let head = request::Head::of_parts(head);
    args::payload(function, &head, &Hints::of(&head), body).ok()
}

/// How many well-formed JSON-RPC requests `body` has.
pub fn rpc(body: &[u8]) -> usize {
    match members(body) {
        Ok(Members::Single(member)) => usize::from(Call::read(member).is_ok()),
        Ok(Members::Batch(members)) => members.into_iter().filter(|member| Call::read(member).is_ok()).count(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rpc_counts_well_formed_requests() {
        assert_eq!(rpc(br#"{"jsonrpc":"2.0","method":"a/b"}"#), 1);
        assert_eq!(rpc(br#"[{"jsonrpc":"2.0","method":"a/b"},1]"#), 1);
    }

    proptest! {
        #[test]
        fn strange_rpc_bodies_are_survived(body in "[\\[\\]{}\":,a-z0-9.é ]{0,80}") {
            rpc(body.as_bytes());
        }

        #[test]
        fn framing_does_not_depend_on_the_cut(input in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            prop_assert_eq!(framing(&input, cut), framing(&input, 0));
        }
    }
}
