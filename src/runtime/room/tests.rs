use super::*;

#[test]
fn judges_by_the_drawing() {
    let reserve = 800;
    for (free, expect) in [
        (0, Verdict::Release),
        (99, Verdict::Release),
        (100, Verdict::Refuse),
        (799, Verdict::Refuse),
        (800, Verdict::AsBefore),
        (899, Verdict::AsBefore),
        (900, Verdict::Accept),
        (1_199, Verdict::Accept),
        (1_200, Verdict::Hold),
        (u64::MAX, Verdict::Hold),
    ] {
        assert_eq!(judge(free, 0, reserve), expect, "{free} free");
    }
    assert_eq!(judge(0, 0, 0), Verdict::Accept, "no reserve asked for");
}

#[test]
fn what_was_drained_is_room() {
    let reserve = 800;
    for (free, reusable, expect) in [
        (99, 10_000, Verdict::Release),
        (199, 10_000, Verdict::Refuse),
        (200, 599, Verdict::Refuse),
        (200, 600, Verdict::AsBefore),
        (200, 700, Verdict::Accept),
        (599, 10_000, Verdict::Accept),
        (600, 10_000, Verdict::Hold),
    ] {
        assert_eq!(
            judge(free, reusable, reserve),
            expect,
            "{free} free, {reusable} reusable"
        );
    }
    assert_eq!(reusable_bytes(100, 40), 0);
    assert_eq!(reusable_bytes(100, 10), 70);
}

#[test]
fn holds_its_ballast_where_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = RoomKeeper::new(dir.path(), 64 * 1024);
    let look = keeper.look(0);
    assert!(look.room);
    assert_eq!(
        std::fs::metadata(dir.path().join("ballast")).unwrap().len(),
        32 * 1024
    );
}

#[test]
fn before_the_store_is_open_a_ballast_is_given_up_on_a_full_disk_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ballast"), [0; 100]).unwrap();
    RoomKeeper::new(dir.path(), 64 * 1024).make_room_to_open();
    let held = || std::fs::metadata(dir.path().join("ballast")).map(|found| found.len());
    assert_eq!(held().unwrap(), 100, "neither given up nor made whole");
}

#[test]
fn takes_no_ballast_where_no_reserve_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    assert!(RoomKeeper::new(dir.path(), 0).look(0).room);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_gone_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = RoomKeeper::new(&dir.path().join("missing"), 64 * 1024);
    assert!(keeper.look(0).room);
    assert!(keeper.blind);
}
