#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: FrameLimits = FrameLimits {
    header_line_bytes_max: 24,
    header_block_bytes_max: 60,
    header_count_max: 4,
    body_bytes_max: 16,
};
const WIDE: FrameLimits = FrameLimits {
    header_line_bytes_max: 10_000,
    header_block_bytes_max: 100_000,
    header_count_max: 1_000,
    body_bytes_max: 1_000_000,
};
const GRAMMARS: [Grammar; 4] = [
    Grammar::CONNECT,
    Version::V10.grammar(),
    Version::V11.grammar(),
    Version::V12.grammar(),
];

/// A frame, owned: command, headers (or why they cannot be read), body.
type Owned = (Vec<u8>, Result<Vec<(Vec<u8>, Vec<u8>)>, DecodeError>, Vec<u8>);

/// What a run of bytes decodes to: frames, then an error or the number of bytes that wait for more.
type Outcome = (Vec<Owned>, Result<usize, DecodeError>);

fn owned(frame: &Frame<'_>) -> Owned {
    let headers = frame
        .headers()
        .map(|header| header.map(|header| (header.name.to_vec(), header.value.to_vec())))
        .collect();
    (frame.command.to_vec(), headers, frame.body.to_vec())
}

/// Decodes input that arrives in pieces, as a driver would.
fn decode(grammar: Grammar, limits: FrameLimits, pieces: &[&[u8]]) -> Outcome {
    let mut decoder = Decoder::new(limits, grammar);
    let (mut frames, mut held) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match decoder.decode(&held[at..]) {
                Ok(Decoded::Frame(frame, len)) => {
                    frames.push(owned(&frame));
                    at += len;
                }
                Ok(Decoded::Incomplete(len)) => {
                    at += len;
                    break;
                }
                Err(error) => return (frames, Err(error)),
            }
        }
        held.drain(..at);
    }
    (frames, Ok(held.len()))
}

/// The reference: takes one byte at a time, copies everything, knows nothing of searching. Written from the grammar.
struct Slow {
    grammar: Grammar,
    limits: FrameLimits,
    frames: Vec<Owned>,
    lines: Vec<Vec<u8>>,
    line: Vec<u8>,
    block_len: usize,
    body: Option<(Option<usize>, Vec<u8>)>,
    held: usize,
}

impl Slow {
    fn run(grammar: Grammar, limits: FrameLimits, bytes: &[u8]) -> Outcome {
        let mut slow = Self {
            grammar,
            limits,
            frames: vec![],
            lines: vec![],
            line: vec![],
            block_len: 0,
            body: None,
            held: 0,
        };
        for byte in bytes {
            if let Err(error) = slow.push(*byte) {
                return (slow.frames, Err(error));
            }
        }
        (slow.frames, Ok(slow.held))
    }

    fn push(&mut self, byte: u8) -> Result<(), DecodeError> {
        self.held += 1;
        if let Some((counted, body)) = &mut self.body {
            let ended = match counted {
                Some(len) => body.len() == *len,
                None => byte == 0,
            };
            if !ended {
                body.push(byte);
                let bounded = counted.is_some() || body.len() <= self.limits.body_bytes_max;
                return if bounded {
                    Ok(())
                } else {
                    Err(DecodeError::BodyTooLong)
                };
            }
            if byte != 0 {
                return Err(DecodeError::NulMissing);
            }
            let body = std::mem::take(body);
            let headers = self.lines[1..].iter().map(|line| self.header(line)).collect();
            self.frames.push((self.lines[0].clone(), headers, body));
            (self.lines, self.body, self.block_len, self.held) = (vec![], None, 0, 0);
            return Ok(());
        }
        if self.lines.is_empty() && byte == b'\n' && (self.line.is_empty() || self.line == b"\r") {
            (self.line, self.held) = (vec![], 0);
            return Ok(());
        }
        match byte {
            0 => Err(DecodeError::NulInHead),
            b'\n' => self.end_line(),
            _ => {
                self.line.push(byte);
                let crlf = usize::from(self.grammar.crlf);
                if self.line.len() > self.limits.header_line_bytes_max + crlf {
                    return Err(DecodeError::HeaderLineTooLong);
                }
                let may_be_empty = self.grammar.crlf && self.line == b"\r";
                if !may_be_empty && self.block_len + self.line.len() + 1 > self.limits.header_block_bytes_max
                {
                    return Err(DecodeError::HeaderBlockTooLong);
                }
                Ok(())
            }
        }
    }

    fn end_line(&mut self) -> Result<(), DecodeError> {
        let mut line = std::mem::take(&mut self.line);
        self.block_len += line.len() + 1;
        if self.grammar.crlf && line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > self.limits.header_line_bytes_max {
            return Err(DecodeError::HeaderLineTooLong);
        }
        if !line.is_empty() || self.lines.is_empty() {
            self.lines.push(line);
            let count = self.lines.len() - 1;
            return if count > self.limits.header_count_max {
                Err(DecodeError::HeaderCountTooHigh)
            } else {
                Ok(())
            };
        }
        let length = self.lines[1..]
            .iter()
            .filter_map(|line| self.header(line).ok())
            .find(|(name, _)| name == b"content-length");
        let counted = match length {
            None => None,
            Some((_, value)) => {
                let text = String::from_utf8(value).map_err(|_| DecodeError::ContentLengthInvalid)?;
                if text.is_empty() || text.chars().any(|c| !c.is_ascii_digit()) {
                    return Err(DecodeError::ContentLengthInvalid);
                }
                match text.parse::<u128>() {
                    Ok(len) if len <= self.limits.body_bytes_max as u128 => Some(len as usize),
                    _ => return Err(DecodeError::BodyTooLong),
                }
            }
        };
        self.body = Some((counted, vec![]));
        Ok(())
    }

    fn header(&self, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let mut name = parts.next().unwrap_or_default().to_vec();
        let mut value = parts.next().ok_or(DecodeError::HeaderMalformed)?.to_vec();
        if self.grammar.padded {
            while name.last() == Some(&b' ') {
                name.pop();
            }
            while value.first() == Some(&b' ') {
                value.remove(0);
            }
        }
        if name.is_empty() || self.grammar.crlf && name.contains(&b'\r') {
            return Err(DecodeError::HeaderMalformed);
        }
        Ok((name, value))
    }
}

/// Bytes that look like frames, more or less.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => Just("SEND\n".to_owned()),
        2 => Just("SEND\r\n".to_owned()),
        4 => Just("\n\0".to_owned()),
        4 => Just("\n".to_owned()),
        2 => Just("\r\n".to_owned()),
        2 => Just("\0".to_owned()),
        1 => Just("\r".to_owned()),
        1 => Just(":".to_owned()),
        1 => Just(" ".to_owned()),
        1 => Just("\\".to_owned()),
        4 => "[a-c]{1,3}:[a-c:\\\\ ]{0,4}\n",
        3 => (0_u64..20).prop_map(|n| format!("content-length:{n}\n")),
        2 => (0_u64..20).prop_map(|n| format!("content-length : {n}\n")),
        1 => "content-length:[0-9x +-]{0,22}\r?\n",
        3 => "[a-z]{0,20}",
        1 => "[a-z]{20,30}",
    ];
    vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

/// Command, headers, body.
type Legal = (String, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

/// A legal frame for a client or server of this version.
fn legal(version: Version) -> impl Strategy<Value = Legal> {
    let (name, value) = match version {
        // What 1.0 cannot write: LF, a colon in a name, padding, NUL.
        Version::V10 => ("[a-zA-Z0-9\\\\é-]{1,12}", "([a-z:\\\\é\r][a-z :\\\\\r]{0,12})?"),
        Version::V11 => ("[a-zA-Z0-9:\\\\é\n \r-]{1,12}", "[a-z:\\\\é\n \r]{0,12}"),
        Version::V12 => ("[a-zA-Z0-9:\\\\é\n\r -]{1,12}", "[a-z:\\\\é\n\r ]{0,12}"),
    };
    let name = name
        .prop_map(String::into_bytes)
        .prop_filter("broker's own", |name| name != b"content-length");
    let value = value.prop_map(String::into_bytes);
    ("[A-Z]{1,12}", vec((name, value), 0..8), vec(any::<u8>(), 0..200))
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 1_000 } else { 20_000 }))]

    #[test]
    fn decodes_as_the_reference_does(bytes in noise(), grammar in prop::sample::select(GRAMMARS.to_vec())) {
        prop_assert_eq!(decode(grammar, LIMITS, &[&bytes]), Slow::run(grammar, LIMITS, &bytes));
    }

    #[test]
    fn decodes_garbage_as_the_reference_does(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(b"\n\r\0:a".to_vec())], 0..200),
        grammar in prop::sample::select(GRAMMARS.to_vec()),
    ) {
        prop_assert_eq!(decode(grammar, LIMITS, &[&bytes]), Slow::run(grammar, LIMITS, &bytes));
    }

    #[test]
    fn every_split_decodes_the_same(
        bytes in noise(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        grammar in prop::sample::select(GRAMMARS.to_vec()),
    ) {
        let whole = decode(grammar, LIMITS, &[&bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&decode(grammar, LIMITS, &single), &whole);
        prop_assert_eq!(&decode(grammar, LIMITS, &pieces(&bytes, &cuts)), &whole);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        (version, frames) in prop::sample::select(Version::ALL.to_vec())
            .prop_flat_map(|version| (Just(version), vec(legal(version), 1..4))),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let escapes = version.grammar().escapes;
        let mut bytes = Vec::new();
        for (command, headers, body) in &frames {
            let frame = headers.iter().fold(
                Encoder::new(&mut bytes, escapes, command),
                |frame, (name, value)| frame.header(name, value),
            );
            frame.body(body);
        }
        let (decoded, end) = decode(version.grammar(), WIDE, &pieces(&bytes, &cuts));
        prop_assert_eq!(end, Ok(0));
        prop_assert_eq!(decoded.len(), frames.len());
        for ((command, headers, body), read) in frames.iter().zip(decoded) {
            prop_assert_eq!(command.as_bytes(), read.0);
            prop_assert_eq!(body, &read.2);
            let mut raw = read.1.unwrap();
            let (name, value) = raw.pop().unwrap();
            prop_assert_eq!((&name[..], value), (&b"content-length"[..], body.len().to_string().into_bytes()));
            let text: Vec<(Vec<u8>, Vec<u8>)> = raw
                .iter()
                .map(|(name, value)| {
                    (unescape(escapes, name).unwrap().into_owned(), unescape(escapes, value).unwrap().into_owned())
                })
                .collect();
            prop_assert_eq!(headers, &text);
        }
    }

    /// Whatever a producer of any version writes, a consumer of any version reads the same headers, as far as its
    /// version can express them; and never one more, nor another name.
    #[test]
    fn a_header_is_never_forged(
        (from, headers) in prop::sample::select(Version::ALL.to_vec())
            .prop_flat_map(|version| (Just(version), legal(version).prop_map(|(_, headers, _)| headers))),
        to in prop::sample::select(Version::ALL.to_vec()),
    ) {
        let escapes = from.grammar().escapes;
        let (mut stored, mut raw) = (Vec::new(), Vec::new());
        for (name, value) in &headers {
            for (part, text, end) in [(Part::Name, name, b':'), (Part::Value, value, b'\n')] {
                raw.clear();
                escape(escapes, part, text, &mut raw);
                prop_assert_eq!(&unescape(escapes, &raw).unwrap()[..], &text[..]);
                store(escapes, &raw, &mut stored);
                stored.push(end);
            }
        }
        let mut sent = Vec::new();
        transcode(to.grammar().escapes, &stored, &mut sent);
        let lines: Vec<&[u8]> = sent.split(|byte| *byte == b'\n').collect();
        prop_assert_eq!(lines.len(), headers.len() + 1);
        for (line, (name, value)) in lines.iter().zip(&headers) {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            let (got_name, got_value) = (&line[..colon], &line[colon + 1..]);
            match to {
                Version::V10 => {
                    // LF, and a colon in a name, stay as two characters.
                    let mut expected = (Vec::new(), Vec::new());
                    escape(Escapes::None, Part::Name, name, &mut expected.0);
                    escape(Escapes::None, Part::Value, value, &mut expected.1);
                    prop_assert_eq!((got_name.to_vec(), got_value.to_vec()), expected);
                }
                _ => {
                    let escapes = to.grammar().escapes;
                    prop_assert_eq!(&unescape(escapes, got_name).unwrap()[..], &name[..]);
                    prop_assert_eq!(&unescape(escapes, got_value).unwrap()[..], &value[..]);
                }
            }
        }
    }
}

#[test]
fn escapes_are_those_of_the_version() {
    let check = |escapes, raw: &str, expect: Result<&str, DecodeError>| {
        let text =
            unescape(escapes, raw.as_bytes()).map(|text| String::from_utf8(text.into_owned()).unwrap());
        assert_eq!(text, expect.map(str::to_owned), "{raw} with {escapes:?}");
    };
    check(Escapes::Four, r"a\nb\cc\\d\re", Ok("a\nb:c\\d\re"));
    check(Escapes::Three, r"a\nb\cc\\d", Ok("a\nb:c\\d"));
    check(Escapes::Three, r"a\r", Err(DecodeError::EscapeInvalid));
    check(Escapes::Three, r"a\t", Err(DecodeError::EscapeInvalid));
    check(Escapes::Four, r"a\t", Err(DecodeError::EscapeInvalid));
    check(Escapes::Four, "a\\", Err(DecodeError::EscapeInvalid));
    check(Escapes::Four, r"\\n", Ok(r"\n"));
    check(Escapes::None, r"a\n\t\", Ok(r"a\n\t\"));
}

#[test]
fn a_stored_block_is_transcoded() {
    let block = b"n\\cm\\r\\n\\\\:v\\cw\\r\\n\\\\n\nplain:value\n";
    let check = |escapes, expect: &[u8]| {
        let mut out = Vec::new();
        transcode(escapes, block, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(expect),
            "{escapes:?}"
        );
    };
    check(Escapes::Four, block);
    check(Escapes::Three, b"n\\cm\r\\n\\\\:v\\cw\r\\n\\\\n\nplain:value\n");
    check(Escapes::None, b"n\\cm\r\\n\\:v:w\r\\n\\n\nplain:value\n");
}

/// One frame with a head and body of chosen sizes.
fn sized(line: usize, lines: usize, body: usize, counted: bool) -> Vec<u8> {
    let mut bytes = b"SEND\n".to_vec();
    if counted {
        bytes.extend(format!("content-length:{body}\n").bytes());
    }
    for _ in 0..lines {
        bytes.extend(b"a:");
        bytes.extend(std::iter::repeat_n(b'x', line - 2));
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend(std::iter::repeat_n(b'y', body));
    bytes.push(0);
    bytes
}

#[test]
fn limits_hold_at_the_bound_and_not_one_over() {
    let limits = FrameLimits {
        header_line_bytes_max: 100,
        header_block_bytes_max: 300,
        header_count_max: 10,
        body_bytes_max: 50,
    };
    let check = |bytes: Vec<u8>, expect: Result<usize, DecodeError>| {
        for grammar in GRAMMARS {
            for size in [bytes.len(), 1] {
                let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                assert_eq!(decode(grammar, limits, &pieces).1, expect, "{grammar:?} {size}");
            }
        }
    };
    check(sized(100, 2, 0, false), Ok(0));
    check(sized(101, 2, 0, false), Err(DecodeError::HeaderLineTooLong));
    // 5 of the command line, then lines of 59 with their ends.
    check(sized(58, 5, 0, false), Ok(0));
    let mut over = sized(58, 5, 0, false);
    over.splice(0..4, *b"SENDS");
    check(over, Err(DecodeError::HeaderBlockTooLong));
    check(sized(2, 10, 0, false), Ok(0));
    check(sized(2, 11, 0, false), Err(DecodeError::HeaderCountTooHigh));
    for counted in [false, true] {
        check(sized(2, 1, 50, counted), Ok(0));
        check(sized(2, 1, 51, counted), Err(DecodeError::BodyTooLong));
    }
    // Without any line end or NUL in sight, the bytes at hand are enough.
    check(vec![b'a'; 110], Err(DecodeError::HeaderLineTooLong));
    check(
        b"SEND\ncontent-length:18446744073709551616\n\n".to_vec(),
        Err(DecodeError::BodyTooLong),
    );
    check(
        b"SEND\ncontent-length:-1\n\n".to_vec(),
        Err(DecodeError::ContentLengthInvalid),
    );
    check(
        b"SEND\ncontent-length:+1\n\n".to_vec(),
        Err(DecodeError::ContentLengthInvalid),
    );
    check(
        b"SEND\ncontent-length:1\n\naa".to_vec(),
        Err(DecodeError::NulMissing),
    );
    check(b"SEND\na:b\0".to_vec(), Err(DecodeError::NulInHead));
}

#[test]
fn a_line_at_the_bound_may_end_in_cr_lf() {
    let limits = FrameLimits {
        header_line_bytes_max: 10,
        ..WIDE
    };
    let check = |line: &str, expect| {
        let bytes = format!("SEND\r\n{line}\r\n\r\n\0\r\n");
        assert_eq!(
            decode(Version::V12.grammar(), limits, &[bytes.as_bytes()]).1,
            expect,
            "{line}"
        );
    };
    check("a:34567890", Ok(0));
    check("a:345678901", Err(DecodeError::HeaderLineTooLong));
}

#[test]
fn a_body_holds_nul_if_it_is_counted_and_the_first_count_counts() {
    let bytes = b"SEND\ncontent-length:3\ncontent-length:9\n\na\0b\0\n\nSEND\n\nab\0";
    let (frames, end) = decode(Version::V12.grammar(), WIDE, &[bytes]);
    let bodies: Vec<&[u8]> = frames.iter().map(|frame| &frame.2[..]).collect();
    assert_eq!((bodies, end), (vec![&b"a\0b"[..], b"ab"], Ok(0)));
}

#[test]
fn padding_is_removed_in_1_0_only() {
    let bytes = b"SEND\nfoo : bar \n\n\0";
    let headers = |version: Version| decode(version.grammar(), WIDE, &[bytes]).0[0].1.clone().unwrap();
    assert_eq!(headers(Version::V10), [(b"foo".to_vec(), b"bar ".to_vec())]);
    assert_eq!(headers(Version::V11), [(b"foo ".to_vec(), b" bar ".to_vec())]);
    assert_eq!(headers(Version::V12), [(b"foo ".to_vec(), b" bar ".to_vec())]);
}

#[test]
fn carriage_returns_end_lines_in_1_2_only() {
    let bytes = b"SEND\r\na:b\r\n\r\n\0";
    assert_eq!(decode(Version::V12.grammar(), WIDE, &[bytes]).0[0].0, b"SEND");
    // The line that holds only a CR is no empty line, so the head goes on to the NUL.
    assert_eq!(
        decode(Version::V11.grammar(), WIDE, &[bytes]).1,
        Err(DecodeError::NulInHead)
    );
}

#[test]
fn bytes_that_arrive_one_by_one_are_searched_once() {
    for counted in [false, true] {
        let bytes = sized(100, 50, 20_000, counted);
        let mut decoder = Decoder::new(WIDE, Version::V12.grammar());
        for end in 1..bytes.len() {
            assert_eq!(decoder.decode(&bytes[..end]), Ok(Decoded::Incomplete(0)));
        }
        assert!(matches!(decoder.decode(&bytes), Ok(Decoded::Frame(_, len)) if len == bytes.len()));
        assert!(
            decoder.searched_bytes <= bytes.len(),
            "{} of {}",
            decoder.searched_bytes,
            bytes.len()
        );
    }
}

#[test]
fn a_long_body_is_known_before_it_arrives() {
    let mut decoder = Decoder::new(WIDE, Version::V12.grammar());
    let head = b"\nSEND\nreceipt:7\ncontent-length:100000\n\n";
    assert_eq!(decoder.long_frame_bytes(0), None);
    assert_eq!(decoder.decode(head), Ok(Decoded::Incomplete(1)));
    let frame_bytes = head.len() - 1 + 100_001;
    assert_eq!(decoder.long_frame_bytes(100_000), Some(frame_bytes));
    assert_eq!(decoder.long_frame_bytes(100_001), None);
    let headers: Vec<_> = decoder
        .headers_so_far(head)
        .map(|header| header.unwrap().name)
        .collect();
    assert_eq!(headers, [&b"receipt"[..], b"content-length"]);
}

#[test]
fn a_long_body_without_length_may_become_as_long_as_any() {
    let mut decoder = Decoder::new(WIDE, Version::V12.grammar());
    let frame = b"SEND\n\n0123456789";
    assert_eq!(decoder.decode(frame), Ok(Decoded::Incomplete(0)));
    let frame_bytes = "SEND\n\n".len() + WIDE.body_bytes_max + 1;
    assert_eq!(decoder.long_frame_bytes(10), Some(frame_bytes));
    assert_eq!(decoder.long_frame_bytes(11), None);
}
