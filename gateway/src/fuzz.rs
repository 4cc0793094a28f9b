//! What reads bytes of strangers, for fuzz targets and property tests. Not for use: it may change
//! at any time. Nothing here may panic, whatever it is given.

use bytes::Bytes;
use fnmesh_invoke::{Function, Payload};
use http::request::Parts;

use crate::{
    args,
    headers::Hints,
    route::Route,
    rpc::request::{Call, Members, members},
    strict::Framing,
};

/// Checks the framing of `input`, cut at `cut`; says how many bytes pass and whether the next one
/// is refused.
pub fn framing(input: &[u8], cut: usize) -> (usize, bool) {
    let mut framing = Framing::new(16 * 1024);
    let mut passed = 0;
    for end in [cut.min(input.len()), input.len()] {
        let verdict = framing.check(&input[passed..end]);
        passed += verdict.passed;
        if verdict.refused.is_some() {
            return (passed, true);
        }
    }
    (passed, false)
}

/// Whether `path` leads somewhere.
pub fn route(path: &str) -> bool {
    Route::of(path).is_ok()
}

/// The arguments that a request gives to `function`.
pub fn arguments(function: &Function, head: &Parts, body: Bytes) -> Option<Payload> {
    args::payload(function, head, &Hints::of(&head.headers), body).ok()
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
