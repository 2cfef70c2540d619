//! Bodies in JSON: as text where they are, else in base64.

use super::{Body, BodyEncoding};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Body {
    /// A body, or its beginning.
    pub fn of(bytes: &[u8], truncated: bool) -> Self {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            // A character that was cut in two is not shown.
            Err(error) if truncated && error.error_len().is_none() => bytes
                .get(..error.valid_up_to())
                .and_then(|whole| std::str::from_utf8(whole).ok()),
            Err(_) => None,
        };
        let (encoding, data) = match text {
            Some(text) => (BodyEncoding::Text, text.to_owned()),
            None => (BodyEncoding::Base64, base64(bytes)),
        };
        Self {
            encoding,
            data,
            truncated,
        }
    }

    /// The bytes; `None` where it says base64 and is not.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.encoding {
            BodyEncoding::Text => Some(self.data.into_bytes()),
            BodyEncoding::Base64 => from_base64(self.data.as_bytes()),
        }
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..4 {
            let digit = DIGITS.get((word >> (18 - 6 * place) & 63) as usize);
            text.push(match digit {
                Some(digit) if place <= group.len() => char::from(*digit),
                _ => '=',
            });
        }
    }
    text
}

/// The inverse: of nothing that `base64` does not write.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut groups = text.chunks(4).peekable();
    while let Some(group) = groups.next() {
        let pad_count = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if group.len() != 4 || pad_count > 2 || (pad_count > 0 && groups.peek().is_some()) {
            return None;
        }
        let digits = group.iter().take(4 - pad_count).chain([&b'A', &b'A']).take(4);
        let word = digits
            .copied()
            .try_fold(0_u32, |word, byte| Some(word << 6 | value(byte)?))?;
        let [_, whole @ ..] = word.to_be_bytes();
        let (kept, rest) = whole.split_at(3 - pad_count);
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
            assert_eq!(from_base64(expected.as_bytes()).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn what_is_no_base64_is_nothing() {
        for text in [
            "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "====", "Z===", "Zm 9", "Zm9-",
        ] {
            assert_eq!(from_base64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_body_is_text_where_it_can_be() {
        let text = |data: &str, truncated| Body {
            encoding: BodyEncoding::Text,
            data: data.to_owned(),
            truncated,
        };
        assert_eq!(Body::of("aü".as_bytes(), false), text("aü", false));
        // The cut goes through the last character.
        assert_eq!(Body::of(b"a\xc3", true), text("a", true));
        // No cut, no excuse.
        assert_eq!(Body::of(b"a\xc3", false).encoding, BodyEncoding::Base64);
        assert_eq!(Body::of(b"\xff\x00", true).data, "/wA=");
    }

    proptest! {
        #[test]
        fn a_body_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Body::of(&bytes, false).into_bytes(), Some(bytes));
        }
    }
}
