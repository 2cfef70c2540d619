use std::net::IpAddr;

use super::super::slowing::{Slowing, Source};
use crate::base::Limits;

fn limits() -> Limits {
    Limits {
        login_failure_count_max: 3,
        login_failure_window_ms: 10_000,
        login_delay_ms: 500,
        login_delay_ms_max: 3_000,
        login_address_count_max: 2,
        ..Limits::default()
    }
}

fn at(address: &str) -> Source {
    Source::of(address.parse::<IpAddr>().unwrap())
}

#[test]
fn waits_begin_at_the_bound_double_and_have_an_end() {
    let mut slowing = Slowing::new(&limits());
    let source = at("192.0.2.1");
    let mut now = 1_000;
    for expected in [0, 0, 500, 1_000, 2_000, 3_000, 3_000] {
        slowing.handle_failure(source, now);
        let until = slowing.wait_until(source, now);
        assert_eq!(until, (expected > 0).then(|| now + expected), "{expected}");
        // Others do not wait, whatever this one does.
        assert_eq!(slowing.wait_until(at("192.0.2.2"), now), None);
        now += expected;
        assert_eq!(slowing.wait_until(source, now), None, "the wait is over");
    }
    // Within the window it is remembered, and forgotten behind it.
    now += 9_999 - 3_000;
    slowing.handle_failure(source, now);
    assert_eq!(slowing.wait_until(source, now), Some(now + 3_000));
    now += 10_000;
    slowing.handle_failure(source, now);
    assert_eq!(slowing.wait_until(source, now), None);
}

#[test]
fn a_wait_longer_than_the_window_is_kept() {
    let mut slowing = Slowing::new(&Limits {
        login_failure_window_ms: 100,
        login_delay_ms: 1_000,
        ..limits()
    });
    for _ in 0..3 {
        slowing.handle_failure(at("192.0.2.1"), 0);
    }
    assert_eq!(slowing.wait_until(at("192.0.2.1"), 500), Some(1_000));
}

#[test]
fn the_table_forgets_who_failed_first() {
    let mut slowing = Slowing::new(&limits());
    let fail = |slowing: &mut Slowing, address: &str, now| {
        for _ in 0..3 {
            slowing.handle_failure(at(address), now);
        }
    };
    fail(&mut slowing, "192.0.2.1", 1);
    fail(&mut slowing, "192.0.2.2", 2);
    fail(&mut slowing, "192.0.2.1", 3);
    fail(&mut slowing, "192.0.2.3", 4);
    assert!(slowing.wait_until(at("192.0.2.1"), 4).is_some());
    assert!(slowing.wait_until(at("192.0.2.2"), 4).is_none());
    assert!(slowing.wait_until(at("192.0.2.3"), 4).is_some());
}

#[test]
fn one_network_of_version_6_is_one_source() {
    assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
    assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
}
