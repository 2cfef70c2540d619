use super::*;

/// 2023-11-14, a Tuesday, 22:13:20 UTC.
const AT: u64 = 1_700_000_000_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;
/// The midnight behind it.
const MIDNIGHT: u64 = AT + (106 * 60 + 40) * 1_000;

fn next(text: &str, behind_ms: u64) -> Option<u64> {
    Cron::parse(text)
        .unwrap_or_else(|| panic!("{text}"))
        .next(behind_ms)
}

#[test]
fn cron_is_that_of_unix_in_utc() {
    for (text, at) in [
        ("* * * * *", AT + 40_000),
        ("*/5 * * * *", AT + 100_000),
        ("0 0 * * *", MIDNIGHT),
        ("30 4 * * *", MIDNIGHT + 270 * MINUTE),
        ("0 0 * * SUN", MIDNIGHT + 4 * DAY),
        ("0 0 * * 7", MIDNIGHT + 4 * DAY),
        ("0 0 * * mon-tue", MIDNIGHT + 5 * DAY),
        ("0 0 1 dec *", MIDNIGHT + 16 * DAY),
        // The 20th, or a Friday.
        ("0 0 20 * 5", MIDNIGHT + 2 * DAY),
        // A leap day.
        ("0 0 29 2 *", MIDNIGHT + 106 * DAY),
        ("0 0 L * *", MIDNIGHT + 15 * DAY),
    ] {
        assert_eq!(next(text, AT), Some(at), "{text}");
    }
}

#[test]
fn the_next_is_behind() {
    assert_eq!(next("0 0 * * *", MIDNIGHT), Some(MIDNIGHT + DAY));
    assert_eq!(next("0 0 * * *", MIDNIGHT - 1), Some(MIDNIGHT));
    assert_eq!(next("0 0 * * *", MIDNIGHT + 1), Some(MIDNIGHT + DAY));
}

#[test]
fn no_day_is_like_that() {
    assert_eq!(next("0 0 30 2 *", AT), None);
    assert_eq!(next("* * * * *", u64::MAX), None);
    assert_eq!(next("* * * * *", i64::MAX as u64), None);
}

#[test]
fn what_is_no_expression() {
    let long = format!("{}1 * * * *", "1,".repeat(200));
    for text in [
        "",
        "*",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "@daily",
        "@reboot",
        "0 0 1 * +MON",
        "* * * * \u{e9}",
        "a * * * *",
        &long,
    ] {
        assert!(Cron::parse(text).is_none(), "{text}");
    }
}

#[test]
fn one_that_ends_gives_each() {
    let schedule = Schedule::Every {
        period_ms: 10,
        last_at_ms: Some(120),
    };
    assert_eq!(schedule.next(100, 1_000), Some(110));
    assert_eq!(schedule.next(110, 1_000), Some(120));
    assert_eq!(schedule.next(120, 1_000), None);
}

#[test]
fn one_that_goes_on_leaves_out_what_was_missed() {
    let schedule = Schedule::Every {
        period_ms: 10,
        last_at_ms: None,
    };
    for (now, next) in [(100, 110), (109, 110), (110, 120), (111, 120), (1_005, 1_010)] {
        assert_eq!(schedule.next(100, now), Some(next), "{now}");
    }
    assert_eq!(schedule.next(u64::MAX - 5, u64::MAX), None);
    let cron = Schedule::Cron(Cron::parse("0 0 * * *").unwrap());
    assert_eq!(
        cron.next(MIDNIGHT, MIDNIGHT + 3 * DAY + 5),
        Some(MIDNIGHT + 4 * DAY)
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "[0-9A-Za-z*,/#? \t-]{0,40}", behind_ms in 0..4_000_000_000_000_u64) {
            if let Some(next) = Cron::parse(&text).and_then(|cron| cron.next(behind_ms)) {
                prop_assert!(next > behind_ms);
            }
        }

        /// Each match of hour and minute, and no other.
        #[test]
        fn none_is_left_out(minute in 0..60_u64, hour in 0..24_u64, behind_ms in 0..4_000_000_000_000_u64) {
            let of_day = (hour * 60 + minute) * MINUTE;
            let today = behind_ms / DAY * DAY + of_day;
            let expect = if today > behind_ms { today } else { today + DAY };
            prop_assert_eq!(next(&format!("{minute} {hour} * * *"), behind_ms), Some(expect));
        }

        #[test]
        fn the_times_of_a_period_are_kept(first in 0..1_000_u64, period_ms in 1..50_u64, late in 0..500_u64, count in proptest::option::of(0..20_u64)) {
            let last_at_ms = count.map(|count| first + count * period_ms);
            let schedule = Schedule::Every { period_ms, last_at_ms };
            match (schedule.next(first, first + late), last_at_ms) {
                (Some(next), last) => {
                    prop_assert_eq!((next - first) % period_ms, 0);
                    prop_assert!(last.is_none_or(|last| next <= last));
                    prop_assert!(last.is_some() || (next > first + late && next <= first + late + period_ms));
                }
                (None, last) => prop_assert_eq!(last, Some(first)),
            }
        }
    }
}
