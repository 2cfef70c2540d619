use super::*;
use crate::client::Decoder;

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let mut out = Vec::new();
    let odd = "a:b\\c\nd\re";
    encode_frame(
        &mut out,
        "SEND",
        &[("destination", "/queue/a"), (odd, odd)],
        Some(b"x\0y"),
    );
    let mut decoder = Decoder::new();
    decoder.push(&out);
    let frame = decoder.next_frame().unwrap().unwrap();
    let (name, value) = frame.headers().nth(1).unwrap();
    assert_eq!(crate::client::unescape(name), odd.as_bytes());
    assert_eq!(crate::client::unescape(value), odd.as_bytes());
    assert_eq!(frame.body, b"x\0y");
}

#[test]
fn connect_is_not_escaped() {
    let mut out = Vec::new();
    encode_frame(&mut out, "CONNECT", &[("passcode", ":=123")], None);
    assert_eq!(out, b"CONNECT\npasscode::=123\n\n\0");
}

#[test]
fn a_template_makes_whole_frames() {
    let template = SendTemplate::new("/queue/a", 3, &[("k".into(), "v".into())], "receipt");
    let mut out = Vec::new();
    template.encode(&mut out, 17, None, |out| out.extend_from_slice(b"abc"));
    assert_eq!(
        out,
        b"SEND\ndestination:/queue/a\ncontent-length:3\nk:v\nreceipt:17\n\nabc\0"
    );
    out.clear();
    template.encode(&mut out, 1, Some(b"x-1"), |out| out.extend_from_slice(b"abc"));
    let head = "SEND\ndestination:/queue/a\ncontent-length:3\nk:v\nreceipt:1\ndedup-id:x-1\n\nabc\0";
    assert_eq!(out, head.as_bytes());
}

#[test]
fn an_ack_id_goes_back_raw() {
    let mut out = Vec::new();
    encode_ack(&mut out, b"a\\cb");
    assert_eq!(out, b"ACK\nid:a\\cb\n\n\0");
}
