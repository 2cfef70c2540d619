use super::*;

#[test]
fn a_hanging_commit_is_told_of_once() {
    let watchdog = Watchdog::default();
    assert_eq!(watchdog.check(1_000_000), None, "nothing under way");
    watchdog.begin(1_000);
    assert_eq!(watchdog.check(11_000), None, "exactly at the bound");
    assert_eq!(watchdog.check(11_001), Some(Duration::from_millis(10_001)));
    assert_eq!(watchdog.check(20_000), None);
    watchdog.end();
    assert_eq!(watchdog.check(30_000), None);
    watchdog.begin(40_000);
    assert_eq!(
        watchdog.check(51_000),
        Some(Duration::from_millis(11_000)),
        "the next one is told of again"
    );
}
