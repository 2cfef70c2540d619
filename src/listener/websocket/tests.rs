use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::input::{Broken, Input};
use super::output::Output;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A frame of a client's.
fn masked(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        opcode,
        mask: Some(MASK),
        ..FrameHeader::default()
    };
    let mut frame = Vec::new();
    header
        .format(payload.len() as u64, &mut frame)
        .expect("a Vec takes what is written to it");
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// What an input makes of bytes that come in these pieces.
fn taken<'a>(input: &mut Input, pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Broken> {
    let mut payload = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let count = input.take(&mut bytes)?;
        payload.extend_from_slice(bytes.get(..count).expect("no more than there was"));
    }
    Ok(payload)
}

#[test]
fn input_is_the_same_at_every_split() {
    let text = "grün 日本 🎉".repeat(20);
    let long = vec![0xff; 70_000];
    let (begin, end) = text.as_bytes().split_at(31);
    let bytes = [
        masked(OpCode::Data(Data::Text), false, begin),
        masked(OpCode::Control(Control::Ping), true, b"first"),
        masked(OpCode::Data(Data::Continue), true, end),
        masked(OpCode::Data(Data::Binary), true, b""),
        masked(OpCode::Control(Control::Pong), true, b"nobody asked"),
        masked(OpCode::Data(Data::Binary), true, &[0xff; 300]),
        masked(OpCode::Control(Control::Ping), true, b"last"),
    ]
    .concat();
    let expected = [text.as_bytes(), &[0xff; 300]].concat();
    for size in 1..=bytes.len() {
        let mut input = Input::default();
        assert_eq!(
            taken(&mut input, bytes.chunks(size)),
            Ok(expected.clone()),
            "{size}"
        );
        assert_eq!(input.take_ping().as_deref(), Some(&b"last"[..]));
        assert_eq!(input.take_ping(), None);
        assert!(!input.is_closed());
    }
    let bytes = masked(OpCode::Data(Data::Binary), true, &long);
    for size in [1, 7, 8, 4_093, bytes.len()] {
        assert_eq!(
            taken(&mut Input::default(), bytes.chunks(size)).as_ref(),
            Ok(&long)
        );
    }
}

#[test]
fn what_follows_a_close_is_not_looked_at() {
    let mut bytes = masked(OpCode::Data(Data::Text), true, b"a");
    bytes.extend(masked(OpCode::Control(Control::Close), true, &[3, 232]));
    bytes.extend_from_slice(&[0xff; 20]);
    let mut input = Input::default();
    assert_eq!(taken(&mut input, bytes.chunks(5)), Ok(b"a".to_vec()));
    assert!(input.is_closed());
}

#[test]
fn what_the_protocol_forbids_is_refused_at_every_split() {
    let check = |frames: &[Vec<u8>], expected: Broken| {
        let bytes = frames.concat();
        for size in 1..=bytes.len() {
            let broken = taken(&mut Input::default(), bytes.chunks(size));
            assert_eq!(broken, Err(expected), "{bytes:?} by {size}");
        }
    };
    let frame = |opcode, is_final, payload: &[u8]| masked(opcode, is_final, payload);
    let (text, binary) = (OpCode::Data(Data::Text), OpCode::Data(Data::Binary));
    let (more, ping) = (OpCode::Data(Data::Continue), OpCode::Control(Control::Ping));
    let bits = |first, second| vec![vec![first, second, 0, 0, 0, 0]];
    check(&[frame(more, true, b"")], Broken::Frame);
    check(
        &[frame(text, false, b""), frame(binary, true, b"")],
        Broken::Frame,
    );
    check(&[frame(ping, false, b"")], Broken::Frame);
    check(&[frame(ping, true, &[0; 126])], Broken::Frame);
    // Reserved bits, a reserved opcode, no mask, a length with its highest bit.
    for reserved in [0x40, 0x20, 0x10] {
        check(&bits(0x82 | reserved, 0x80), Broken::Frame);
    }
    check(&bits(0x83, 0x80), Broken::Frame);
    check(&bits(0x82, 0x00), Broken::Frame);
    let endless = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    check(&[endless.to_vec()], Broken::Frame);
    // Not UTF-8: at once, cut by the end of a frame, at the end of a message.
    check(&[frame(text, true, b"\xff")], Broken::Text);
    check(
        &[frame(text, false, b"\xe6"), frame(more, true, b"\x41")],
        Broken::Text,
    );
    check(
        &[frame(text, false, b"\xe6"), frame(more, true, b"\x97")],
        Broken::Text,
    );
}

/// Frames of ours, by opcode, whether final, and payload.
fn frames(mut bytes: &[u8]) -> Vec<(OpCode, bool, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = std::io::Cursor::new(bytes);
        let (header, len) = FrameHeader::parse(&mut cursor)
            .expect("it is a header")
            .expect("it is whole");
        assert_eq!(header.mask, None);
        let begin = usize::try_from(cursor.position()).expect("it is small");
        let end = begin + usize::try_from(len).expect("it is small");
        let payload = bytes.get(begin..end).expect("it is whole").to_vec();
        frames.push((header.opcode, header.is_final, payload));
        bytes = bytes.get(end..).expect("it is whole");
    }
    frames
}

fn encoded(output: &mut Output, bytes: &[u8]) -> Vec<(OpCode, bool, Vec<u8>)> {
    let mut done = 0;
    let mut frames_ = Vec::new();
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let count = output.encode(rest);
        assert!(count > 0, "it makes progress");
        done += count;
        let ready = output.rest().expect("there is something").to_vec();
        output.wrote(ready.len());
        assert!(output.is_empty());
        frames_.extend(frames(&ready));
    }
    frames_
}

#[test]
fn a_frame_of_stomp_is_a_message() {
    const TEXT: OpCode = OpCode::Data(Data::Text);
    const BINARY: OpCode = OpCode::Data(Data::Binary);
    let receipt = b"RECEIPT\nreceipt-id:1\n\n\0\n".to_vec();
    let message = |body: &[u8]| {
        let head = format!("MESSAGE\na:b\ncontent-length:{}\n\n", body.len());
        [head.as_bytes(), body, b"\0\n"].concat()
    };
    let (nul, binary) = (message(b"a\0b\n\nc"), message(b"\xff\0"));
    let bytes = [&receipt[..], b"\n\n", &nul, &binary, &receipt].concat();
    let expected = [
        (TEXT, true, receipt.clone()),
        (TEXT, true, b"\n\n".to_vec()),
        (TEXT, true, nul),
        (BINARY, true, binary),
        (TEXT, true, receipt.clone()),
    ];
    assert_eq!(encoded(&mut Output::default(), &bytes), expected);

    // One that is not all there is binary, in pieces.
    let long = message(&[b'x'; 1_000]);
    let mut output = Output::default();
    let (begin, rest) = long.split_at(500);
    let (middle, end) = rest.split_at(300);
    assert_eq!(encoded(&mut output, begin), [(BINARY, false, begin.to_vec())]);
    let more = OpCode::Data(Data::Continue);
    assert_eq!(encoded(&mut output, middle), [(more, false, middle.to_vec())]);
    let behind = [end, &receipt].concat();
    let expected = [(more, true, end.to_vec()), (TEXT, true, receipt)];
    assert_eq!(encoded(&mut output, &behind), expected);
}

#[test]
fn nothing_follows_a_close() {
    let mut output = Output::default();
    output.put_pong(b"here");
    output.put_close(CloseCode::Normal);
    output.put_pong(b"late");
    output.put_close(CloseCode::Protocol);
    assert!(output.is_closed());
    let expected = [
        (OpCode::Control(Control::Pong), true, b"here".to_vec()),
        (OpCode::Control(Control::Close), true, vec![3, 232]),
    ];
    assert_eq!(frames(output.rest().expect("there is something")), expected);
}

proptest! {
    #[test]
    fn wild_bytes_are_the_same_at_every_split(bytes in vec(any::<u8>(), 0..200), size in 1_usize..20) {
        // Most of them end at the first header, so that some are given one that is right.
        for begin in [&[][..], &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 40, 1, 2, 3, 4], &[0x02, 0x84, 9, 9, 9, 9]] {
            let all = [begin, &bytes].concat();
            let whole = taken(&mut Input::default(), std::iter::once(&all[..]));
            prop_assert_eq!(taken(&mut Input::default(), all.chunks(size)), whole);
        }
    }

    #[test]
    fn every_body_arrives_however_its_frame_is_cut(body in vec(any::<u8>(), 0..400), cut in 0_usize..500) {
        let head = format!("MESSAGE\nx:y\ncontent-length:{}\n\n", body.len());
        let frame = [head.as_bytes(), &body, b"\0\n"].concat();
        // The head is written in one piece, as the driver does.
        let (begin, rest) = frame.split_at(cut.clamp(head.len(), frame.len()));
        let mut output = Output::default();
        let mut frames = encoded(&mut output, begin);
        frames.extend(encoded(&mut output, rest));
        let payload: Vec<u8> = frames.iter().flat_map(|(_, _, payload)| payload.clone()).collect();
        prop_assert_eq!(payload, frame);
        for (opcode, _, payload) in &frames {
            let text = *opcode == OpCode::Data(Data::Text);
            prop_assert!(!text || std::str::from_utf8(payload).is_ok());
        }
    }
}
