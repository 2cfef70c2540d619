use super::*;

#[test]
fn it_takes_and_gives_room() {
    let dir = tempfile::tempdir().unwrap();
    let ballast = Ballast::new(dir.path(), 3 << 20);
    assert!(!ballast.is_held());
    ballast.hold().unwrap();
    ballast.hold().unwrap();
    assert!(ballast.is_held());
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(dir.path().join("ballast")).unwrap());
    assert!(blocks * 512 >= 3 << 20, "{blocks} blocks are no room");
    assert_eq!(ballast.release().unwrap(), 3 << 20);
    assert_eq!(ballast.release().unwrap(), 0);
    assert!(!ballast.is_held());
}

#[test]
fn another_size_is_taken_anew() {
    let dir = tempfile::tempdir().unwrap();
    Ballast::new(dir.path(), 2 << 20).hold().unwrap();
    let smaller = Ballast::new(dir.path(), 1 << 20);
    assert!(!smaller.is_held());
    smaller.hold().unwrap();
    assert_eq!(smaller.held_bytes(), 1 << 20);
}

#[test]
fn too_much_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ballast = Ballast::new(dir.path(), 1 << 60);
    assert!(matches!(
        ballast.hold(),
        Err(StoreError::File {
            operation: "allocation",
            ..
        })
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn room_is_told_and_a_small_disk_keeps_three_quarters() {
    let dir = tempfile::tempdir().unwrap();
    let found = room(dir.path()).unwrap();
    assert!(found.free_bytes > 0 && found.free_bytes <= found.total_bytes);
    let small = Room {
        free_bytes: 10,
        total_bytes: 400,
    };
    assert_eq!(small.reserve_bytes(256 << 20), 100);
    assert_eq!(small.reserve_bytes(40), 40);
    assert!(matches!(
        room(&dir.path().join("absent")),
        Err(StoreError::File {
            operation: "statvfs",
            ..
        })
    ));
}
