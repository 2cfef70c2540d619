use super::*;

#[test]
fn names_cannot_play_tricks_with_a_terminal() {
    for (text, expect) in [
        ("orders/täglich 7", "orders/täglich 7"),
        ("a\u{1b}[2J", "a\\u{1b}[2J"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("a\u{202e}b\u{9b}c", "a\\u{202e}b\\u{9b}c"),
    ] {
        assert_eq!(escaped(text), expect);
    }
}

#[test]
fn times_are_those_of_the_calendar() {
    for (ms, expect) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_800_000, "2000-03-01T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (1_735_689_600_001, "2025-01-01T00:00:00.001Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(utc(ms), expect);
    }
}

#[test]
fn columns_line_up() {
    let rows = [["QUEUE", "DEPTH"], ["ä", "12345"], ["orders", "1"]].map(|row| row.map(str::to_owned));
    let mut out = Vec::new();
    table(&mut out, &rows).unwrap();
    let lines = ["QUEUE   DEPTH\n", "ä       12345\n", "orders      1\n"];
    assert_eq!(String::from_utf8(out).unwrap(), lines.concat());
}
