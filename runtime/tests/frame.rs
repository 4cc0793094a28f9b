//! Properties of the frame codec: what goes in comes out, however the stream is cut, and no bytes harm it.

use fnmesh_runtime::worker::frame::{
    BodyFormat, Decoded, FrameError, HEADER_BYTES, Header, Kind, SHORT_BYTES, decode, encode, encode_short,
};
use proptest::{collection::vec, prelude::*, sample::select};

const LIMIT: usize = 64 * 1024;
const KINDS: [Kind; 16] = [
    Kind::Load,
    Kind::Ready,
    Kind::Invoke,
    Kind::Result,
    Kind::Error,
    Kind::Chunk,
    Kind::Cancel,
    Kind::Credit,
    Kind::Log,
    Kind::Ping,
    Kind::Pong,
    Kind::Stop,
    Kind::Bind,
    Kind::Fork,
    Kind::Forked,
    Kind::Enter,
];
const FORMATS: [BodyFormat; 4] = [BodyFormat::Json, BodyFormat::Bytes, BodyFormat::Text, BodyFormat::None];

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    header: Header,
    meta: Vec<u8>,
    body: Vec<u8>,
}

impl Owned {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode(self.header, &self.meta, &self.body, &mut out);
        out
    }
}

fn header() -> impl Strategy<Value = Header> {
    (select(&KINDS[..]), select(&FORMATS[..]), any::<u16>(), any::<u32>()).prop_map(|(kind, format, aux, id)| Header {
        kind,
        format,
        aux,
        id,
    })
}

fn frame() -> impl Strategy<Value = Owned> {
    (header(), vec(any::<u8>(), 0..64), vec(any::<u8>(), 0..300)).prop_map(|(header, meta, body)| Owned {
        header,
        meta,
        body,
    })
}

/// Takes every whole frame off the front of `buffer`; at an incomplete one, how many bytes it asks for.
fn take(buffer: &mut Vec<u8>, limit: usize) -> Result<(Vec<Owned>, usize), FrameError> {
    let mut frames = Vec::new();
    let mut start = 0;
    let wanted = loop {
        match decode(&buffer[start..], limit)? {
            Decoded::Frame(frame) => {
                assert!(frame.len() >= HEADER_BYTES, "a frame has a header");
                assert!(frame.len() <= limit, "a frame keeps to the limit");
                start += frame.len();
                frames.push(Owned { header: frame.header, meta: frame.meta.to_vec(), body: frame.body.to_vec() });
            }
            Decoded::Incomplete(wanted) => break wanted,
        }
    };
    buffer.drain(..start);
    Ok((frames, wanted))
}

proptest! {
    #[test]
    fn roundtrip_keeps_every_field(frame in frame()) {
        let encoded = frame.encoded();
        prop_assert_eq!(encoded.len(), HEADER_BYTES + frame.meta.len() + frame.body.len());
        let Ok(Decoded::Frame(decoded)) = decode(&encoded, LIMIT) else { panic!("{:?}", decode(&encoded, LIMIT)) };
        prop_assert_eq!(decoded.header, frame.header);
        prop_assert_eq!(decoded.meta, &frame.meta[..]);
        prop_assert_eq!(decoded.body, &frame.body[..]);
        prop_assert_eq!(decoded.len(), encoded.len());
    }

    #[test]
    fn short_body_makes_the_same_frame(frame in frame(), body in any::<[u8; SHORT_BYTES]>(), length in 0..=SHORT_BYTES) {
        let (mut short, mut usual) = (b"before".to_vec(), b"before".to_vec());
        encode_short(frame.header, body, length, &mut short);
        encode(frame.header, &[], &body[..length], &mut usual);
        prop_assert_eq!(short, usual);
    }

    #[test]
    fn any_split_gives_the_same_frames(frames in vec(frame(), 1..6), cuts in vec(1..97_usize, 1..12)) {
        let stream: Vec<u8> = frames.iter().flat_map(Owned::encoded).collect();
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        let mut rest = &stream[..];
        for size in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*size));
            buffer.extend_from_slice(piece);
            let (found, wanted) = take(&mut buffer, LIMIT).unwrap();
            prop_assert!(wanted > buffer.len(), "an incomplete frame asks for more than is there");
            seen.extend(found);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn incomplete_frame_asks_for_no_more_than_itself(frame in frame(), cut in any::<prop::sample::Index>()) {
        let encoded = frame.encoded();
        let there = cut.index(encoded.len());
        let expected = if there < 4 { HEADER_BYTES } else { encoded.len() };
        prop_assert_eq!(decode(&encoded[..there], LIMIT), Ok(Decoded::Incomplete(expected)));
    }

    #[test]
    fn bytes_after_a_frame_do_not_change_it(frame in frame(), after in vec(any::<u8>(), 0..40)) {
        let encoded = frame.encoded();
        let longer = [&encoded[..], &after[..]].concat();
        prop_assert_eq!(decode(&longer, LIMIT), decode(&encoded, LIMIT));
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_claim_more_than_given(mut bytes in vec(any::<u8>(), 0..512), limit in 0..600_usize) {
        let given = bytes.len();
        if let Ok((frames, _)) = take(&mut bytes, limit) {
            let taken: usize = frames.iter().map(|frame| frame.encoded().len()).sum();
            prop_assert_eq!(taken + bytes.len(), given);
        }
    }

    // Random bytes seldom pass the length check: this gives them plausible lengths, so that the checks after it run.
    #[test]
    fn damaged_frames_never_panic_nor_claim_more_than_given(
        frames in vec(frame(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(Owned::encoded).collect();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let given = bytes.len();
        if let Ok((frames, _)) = take(&mut bytes, LIMIT) {
            let taken: usize = frames.iter().map(|frame| frame.encoded().len()).sum();
            prop_assert_eq!(taken + bytes.len(), given);
        }
    }

    #[test]
    fn limit_is_checked_once_the_length_is_there(frame in frame(), there in 4..400_usize) {
        let encoded = frame.encoded();
        let length = encoded.len();
        prop_assert!(matches!(decode(&encoded, length), Ok(Decoded::Frame(_))), "a frame may fill the limit");
        let refused = Err(FrameError::TooLarge { length, limit: length - 1 });
        prop_assert_eq!(decode(&encoded[..there.min(length)], length - 1), refused);
    }
}

/// A whole ping whose `byte` at `place` is replaced.
fn ping_with(place: usize, byte: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(Header::new(Kind::Ping, 7), &[], &[], &mut out);
    out[place] = byte;
    out
}

#[test]
fn contradicting_lengths_are_refused() {
    assert_eq!(decode(&ping_with(0, 11), LIMIT), Err(FrameError::BadLength), "shorter than its own header");
    assert_eq!(decode(&ping_with(12, 1), LIMIT), Err(FrameError::BadLength), "meta longer than the frame");
}

#[test]
fn largest_lengths_are_refused_not_overflown() {
    let claims_all = [0xff; HEADER_BYTES];
    let length = u32::MAX as usize + 4;
    assert_eq!(decode(&claims_all, LIMIT), Err(FrameError::TooLarge { length, limit: LIMIT }));
}

#[test]
fn unknown_kinds_and_formats_are_refused() {
    for kind in [0, 17, 255] {
        assert_eq!(decode(&ping_with(4, kind), LIMIT), Err(FrameError::UnknownKind(kind)));
    }
    for format in [4, 255] {
        assert_eq!(decode(&ping_with(5, format), LIMIT), Err(FrameError::UnknownFormat(format)));
    }
}

// The numbers are the protocol: a reordered enum must not go unnoticed.
#[test]
fn layout_is_the_documented_one() {
    let mut out = Vec::new();
    let header = Header::new(Kind::Invoke, 0x0a0b_0c0d).format(BodyFormat::Text).aux(0x0102);
    encode(header, b"me", b"body", &mut out);
    let expected = [&[18, 0, 0, 0, 3, 2, 0x02, 0x01, 0x0d, 0x0c, 0x0b, 0x0a, 2, 0, 0, 0][..], b"mebody"].concat();
    assert_eq!(out, expected);
    for (number, kind) in (1_u8..).zip(KINDS) {
        assert_eq!(kind as u8, number, "{kind:?}");
    }
    for (number, format) in (0_u8..).zip(FORMATS) {
        assert_eq!(format as u8, number, "{format:?}");
    }
}
