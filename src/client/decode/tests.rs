use proptest::prelude::*;

use super::*;

type Plain = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

/// All frames of `bytes`, handed over in pieces that end at `splits`, or the error.
fn decode(bytes: &[u8], splits: &[usize]) -> (Vec<Plain>, Option<DecodeError>) {
    let mut decoder = Decoder::with_space(16);
    let mut frames = Vec::new();
    let mut at = 0;
    for end in splits.iter().copied().chain([bytes.len()]) {
        decoder.push(&bytes[at..end]);
        at = end;
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push((
                    frame.command.to_vec(),
                    frame
                        .headers()
                        .map(|(name, value)| (name.to_vec(), value.to_vec()))
                        .collect(),
                    frame.body.to_vec(),
                )),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

const STREAM: &[u8] = b"\n\r\nCONNECTED\nversion:1.2\n\n\0\nRECEIPT\nreceipt-id:12\n\n\0\
    MESSAGE\r\nack:a\\cb:c\r\ncontent-length:5\r\ncontent-length:1\r\n\r\nx\0y\nz\0\n\n\
    MESSAGE\nempty:\n\nto the NUL\0RECEIPT\nreceipt-id:13\n\n\0\n";

#[test]
fn a_stream_of_frames() {
    let (frames, error) = decode(STREAM, &[]);
    assert_eq!(error, None);
    let commands: Vec<_> = frames
        .iter()
        .map(|frame| String::from_utf8_lossy(&frame.0).into_owned())
        .collect();
    assert_eq!(
        commands,
        ["CONNECTED", "RECEIPT", "MESSAGE", "MESSAGE", "RECEIPT"]
    );
    assert_eq!(frames[2].1[0], (b"ack".to_vec(), b"a\\cb:c".to_vec()));
    assert_eq!(frames[2].2, b"x\0y\nz");
    assert_eq!(frames[3].1, [(b"empty".to_vec(), Vec::new())]);
    assert_eq!(frames[3].2, b"to the NUL");
}

#[test]
fn the_same_at_every_split() {
    let whole = decode(STREAM, &[]);
    for first in 0..=STREAM.len() {
        for second in first..=STREAM.len() {
            assert_eq!(
                decode(STREAM, &[first, second]),
                whole,
                "split at {first} and {second}"
            );
        }
    }
    let each: Vec<usize> = (0..STREAM.len()).collect();
    assert_eq!(decode(STREAM, &each), whole);
}

#[test]
fn a_body_much_larger_than_the_space_arrives_whole() {
    let body: Vec<u8> = (0..100_000).map(|at| (at % 251) as u8).collect();
    let mut bytes = format!("MESSAGE\ncontent-length:{}\n\n", body.len()).into_bytes();
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(b"\0RECEIPT\nreceipt-id:1\n\n\0");
    let splits: Vec<usize> = (0..bytes.len()).step_by(1000).collect();
    let (frames, error) = decode(&bytes, &splits);
    assert_eq!((frames.len(), error), (2, None));
    assert_eq!(frames[0].2, body);
}

#[test]
fn broken_bytes_are_named() {
    for (bytes, expect) in [
        (&b"MESSAGE\nno colon\n\n\0"[..], DecodeError::HeaderWithoutColon),
        (b"MESSAGE\ncontent-length:x\n\n\0", DecodeError::ContentLength),
        (
            b"MESSAGE\ncontent-length:99999999999\n\n\0",
            DecodeError::ContentLength,
        ),
        (b"MESSAGE\ncontent-length:1\n\nab\0", DecodeError::NoNul),
    ] {
        assert_eq!(
            decode(bytes, &[]).1,
            Some(expect),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn escapes_are_undone() {
    assert_eq!(unescape(b"a\\c\\n\\r\\\\b").as_ref(), b"a:\n\r\\b");
    assert_eq!(unescape(b"\\t\\").as_ref(), b"\\t\\");
}

proptest! {
    #[test]
    fn any_bytes_decode_the_same_at_every_split(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b':'), Just(0), Just(b'\r'), any::<u8>()], 0..200),
        mut splits in proptest::collection::vec(0usize..200, 0..8),
    ) {
        splits.iter_mut().for_each(|split| *split = (*split).min(bytes.len()));
        splits.sort_unstable();
        prop_assert_eq!(decode(&bytes, &splits), decode(&bytes, &[]));
    }
}

#[test]
fn a_length_that_is_only_claimed_takes_no_memory() {
    let mut decoder = Decoder::with_space(64);
    decoder.push(format!("MESSAGE\ncontent-length:{BODY_BYTES_MAX}\n\n").as_bytes());
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.space().len() <= 128);
    let over = BODY_BYTES_MAX + 1;
    decoder = Decoder::with_space(64);
    decoder.push(format!("MESSAGE\ncontent-length:{over}\n\n").as_bytes());
    assert_eq!(decoder.next_frame(), Err(DecodeError::ContentLength));
}
