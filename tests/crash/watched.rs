//! A service manager that watches a broker whose disk hangs.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::powercut::Naming;
use super::rig::Settings;
use super::{Power, alone};

#[test]
fn the_watchdog_is_told_nothing_while_the_disk_hangs() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let power = Power::new(Naming::Ext4);
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let settings = Settings {
        data_dir: power.disk().dir().join("data"),
        variables: vec![
            ("NOTIFY_SOCKET", dir.path().join("notify").display().to_string()),
            ("WATCHDOG_USEC", "1000000".to_owned()),
        ],
        ..Settings::in_dir(dir.path())
    };
    let mut broker = settings.start();
    // Two signs of life within the time allowed, each within half of it.
    let told = |within: Duration| {
        let begin = Instant::now();
        let mut text = [0; 1024];
        while let Some(left) = within.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            manager.set_read_timeout(Some(left)).unwrap();
            let Ok(len) = manager.recv(&mut text) else { break };
            if text[..len].starts_with(b"WATCHDOG=1") {
                return true;
            }
        }
        false
    };
    for _ in 0..4 {
        assert!(told(Duration::from_secs(10)), "a broker that gets on says so");
    }
    let mut client = broker.connect();
    power.disk().stop_at_sync(power.disk().syncs() + 1);
    client
        .send("SEND", &[("destination", "/queue/q"), ("receipt", "r")], b"x")
        .unwrap();
    assert!(
        power
            .disk()
            .wait_stopped(Duration::from_secs(60), || !broker.runs())
    );
    // Half of the time allowed, until the commit counts as hanging, and the signs that were sent before.
    let hanging = Instant::now() + Duration::from_millis(600);
    while told(hanging.saturating_duration_since(Instant::now())) {}
    assert!(
        !told(Duration::from_secs(2)),
        "nothing is told while a commit hangs"
    );
    assert!(broker.runs(), "to end it is the manager's affair");
    broker.kill_begin();
    power.disk().release();
}
