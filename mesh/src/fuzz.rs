//! What reads bytes of peers, for fuzz targets and property tests. Not for use: it may change at any time. Nothing here
//! may panic, whatever it is given.

use bytes::{Bytes, BytesMut};

use crate::{
    rpc,
    transport::{Message, Request, frame},
};

/// Reads `input` as the frames of a stream; says how many messages of a known kind there are.
pub fn link(input: &[u8]) -> usize {
    let mut input = BytesMut::from(input);
    let mut messages = 0;
    while let Ok(Some(frame)) = frame::decode(&mut input, frame::Limits::default()) {
        let Ok(message) = Message::parse(&frame.envelope) else { break };
        messages += 1;
        if let Message::Request { method, params, .. } = message {
            let _ = rpc::read_invoke(&Request { method, params, body: Bytes::new() });
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(envelope: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame::encode(&mut out, |out| out.extend_from_slice(envelope.as_bytes()), b"[1,2]");
        out.to_vec()
    }

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"invoke","params":{"function":"shop/add","invocation":"0123456789abcdef0123456789abcdef","budget_us":1000,"hops":1}}"#;

    #[test]
    fn calls_are_read() {
        assert_eq!(link(&[framed(CALL), framed(CALL)].concat()), 2);
    }

    proptest! {
        #[test]
        fn damaged_calls_never_panic(at in 0_usize..400, byte: u8) {
            let mut bytes = framed(CALL);
            let at = at % bytes.len();
            bytes[at] = byte;
            link(&bytes);
        }

        #[test]
        fn garbage_never_panics(envelope in ".{0,100}") {
            link(&framed(&envelope));
        }
    }
}
