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
        assert_eq!(judge(free, reserve), expect, "{free} free");
    }
    assert_eq!(judge(0, 0), Verdict::Accept, "no reserve asked for");
}

#[test]
fn holds_its_ballast_where_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = RoomKeeper::new(dir.path(), 64 * 1024);
    let look = keeper.look();
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
    assert!(RoomKeeper::new(dir.path(), 0).look().room);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_gone_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut keeper = RoomKeeper::new(&dir.path().join("missing"), 64 * 1024);
    assert!(keeper.look().room);
    assert!(keeper.blind);
}
