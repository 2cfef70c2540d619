use proptest::prelude::*;

use super::*;

fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    seal(&mut out, Kind::Index, 2, 77, payload);
    out
}

#[test]
fn golden_bytes() {
    let expect = b"STFD\x04\x01\x02\x00\x4d\0\0\0\0\0\0\0\x03\0\0\0";
    let bytes = sealed(b"abc");
    assert_eq!(bytes.get(..20), Some(&expect[..]));
    assert_eq!(bytes.get(20..), Some(&b"\x48\x31\x41\xd4abc"[..]), "{bytes:x?}");
    let frame = Frame {
        kind: Kind::Index as u8,
        part: 2,
        number: 77,
        payload: b"abc",
    };
    assert_eq!(open(&bytes, Kind::Index), Ok(frame));
}

/// Frames of older formats are read as they are.
#[test]
fn an_older_frame_opens() {
    let bytes = b"STFD\x01\x01\x02\x00\x4d\0\0\0\0\0\0\0\x03\0\0\0\xd1\xa3\x4f\x82abc";
    assert_eq!(open(bytes, Kind::Index).map(|frame| frame.number), Ok(77));
    assert!(open(bytes, Kind::Body).is_err());
    let mut zero = sealed(b"abc");
    zero[4] = 0;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&zero[..20]), b"abc");
    zero[20..24].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(open(&zero, Kind::Index), Err(FrameError::Broken("has format 0")));
}

#[test]
fn the_extent_is_what_the_head_says() {
    let mut bytes = sealed(b"abc");
    bytes.extend_from_slice(b"more");
    assert_eq!(extent(&bytes, 3), Some(HEAD_BYTES + 3));
    assert_eq!(extent(&bytes, 2), None);
    assert_eq!(extent(&bytes[..HEAD_BYTES + 2], 3), None);
    assert_eq!(extent(&bytes[1..], 3), None);
}

#[test]
fn one_bit_of_a_length_is_mended() {
    let mut bytes = sealed(&[7; 300]);
    let len = bytes.len();
    bytes.extend_from_slice(&[0; 70_000]);
    assert_eq!(mended_extent(&bytes, 65_536), None, "it is whole");
    for bit in 0..32 {
        let mut hit = bytes.clone();
        hit[16 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(mended_extent(&hit, 65_536), Some(len), "bit {bit}");
        hit[100] ^= 1;
        assert_eq!(mended_extent(&hit, 65_536), None, "two bits");
    }
}

#[test]
fn zeros_do_not_parse() {
    for len in 0..100 {
        assert!(open(&vec![0; len], Kind::Index).is_err());
    }
}

#[test]
fn another_kind_is_broken() {
    assert_eq!(
        open(&sealed(b""), Kind::Body),
        Err(FrameError::Broken("is of another kind"))
    );
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut bytes = sealed(b"abc");
    bytes[4] = 9;
    assert_eq!(
        open(&bytes, Kind::Index),
        Err(FrameError::Broken("does not fit its checksum"))
    );
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), b"abc");
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(open(&bytes, Kind::Index), Err(FrameError::Newer(9)));
}

proptest! {
    #[test]
    fn any_changed_byte_is_seen(payload: Vec<u8>, at: prop::sample::Index, flip in 1..=255_u8) {
        let mut bytes = sealed(&payload);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(open(&bytes, Kind::Index).is_err());
    }

    #[test]
    fn any_other_length_is_seen(payload: Vec<u8>, at: prop::sample::Index, more in 1..50_usize) {
        let mut bytes = sealed(&payload);
        prop_assert!(open(&bytes[..at.index(bytes.len())], Kind::Index).is_err());
        bytes.resize(bytes.len() + more, 0);
        prop_assert!(open(&bytes, Kind::Index).is_err());
    }
}
