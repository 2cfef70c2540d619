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
fn sizes_and_times_are_short() {
    for (bytes, expect) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_500, "1023.9 KiB"),
        (1_048_575, "1.0 MiB"),
        (1 << 40, "1.0 TiB"),
    ] {
        assert_eq!(bytes_for_people(bytes), expect);
    }
    for (ms, expect) in [
        (0, "0ms"),
        (999, "999ms"),
        (59_999, "59s"),
        (61_000, "1m 1s"),
        (3_660_000, "1h 1m"),
        (90_000_000, "1d 1h"),
    ] {
        assert_eq!(duration(ms), expect);
    }
    assert_eq!(
        [counted(1, "message"), counted(0, "message")],
        ["1 message", "0 messages"]
    );
}
