use super::*;

fn inside() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn it_lies_in_the_data_folder_for_its_owner_alone() {
    let runtime = inside();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a folder");
    let (place, _listener) = Place::listen(dir.path()).expect("it listens");
    assert_eq!(
        place.path(),
        dir.path().canonicalize().expect("a path").join(SOCKET_FILE)
    );
    assert_eq!(mode(place.path()), 0o600);
    drop(place);
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
}

#[test]
fn one_left_over_is_replaced_and_a_file_is_not() {
    let runtime = inside();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a folder");
    let (place, listener) = Place::listen(dir.path()).expect("it listens");
    std::mem::forget(place);
    drop(listener);
    drop(Place::listen(dir.path()).expect("it listens again"));
    fs::write(dir.path().join(SOCKET_FILE), "mine").expect("a file");
    let error = Place::listen(dir.path()).expect_err("it is in the way");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        fs::read_to_string(dir.path().join(SOCKET_FILE)).expect("a file"),
        "mine"
    );
}

#[test]
fn a_path_too_long_is_elsewhere_and_named() {
    let runtime = inside();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a folder");
    let long = dir.path().join("x".repeat(PATH_BYTES_MAX));
    fs::create_dir(&long).expect("a folder");
    let named = || PathBuf::from(fs::read_to_string(long.join(PATH_FILE)).expect("it is named"));

    let (place, _listener) = Place::listen(&long).expect("it listens");
    let first = place.path().to_owned();
    assert_eq!(named(), first);
    let folder = first.parent().expect("a folder").to_owned();
    assert_eq!((mode(&first), mode(&folder)), (0o600, 0o700));
    std::mem::forget(place);

    let (place, _listener) = Place::listen(&long).expect("it listens again");
    assert_ne!(place.path(), first, "a name nobody knew before");
    assert!(!folder.exists(), "what was left over is gone");
    assert_eq!(named(), place.path());
    let folder = place.path().parent().expect("a folder").to_owned();
    drop(place);
    assert!(!folder.exists());
    assert_eq!(fs::read_dir(&long).expect("a folder").count(), 0);
}

#[test]
fn a_path_just_short_enough_is_near() {
    let runtime = inside();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a folder");
    let base = dir.path().canonicalize().expect("a path");
    for (len, near) in [(PATH_BYTES_MAX, true), (PATH_BYTES_MAX + 1, false)] {
        let name_len = len - base.as_os_str().len() - 1 - SOCKET_FILE.len() - 1;
        let folder = base.join("y".repeat(name_len));
        fs::create_dir(&folder).expect("a folder");
        let (place, _listener) = Place::listen(&folder).expect("it listens");
        assert_eq!(place.path() == folder.join(SOCKET_FILE), near, "{len} bytes");
    }
}

#[test]
fn a_name_in_the_file_that_is_not_ours_is_left_alone() {
    let runtime = inside();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let other = dir.path().join("other");
    fs::create_dir(&data).expect("a folder");
    fs::create_dir(&other).expect("a folder");
    let (place, _listener) = Place::listen(&other).expect("it listens");
    fs::write(data.join(PATH_FILE), place.path().as_os_str().as_encoded_bytes()).expect("a file");
    drop(Place::listen(&data).expect("it listens"));
    assert!(place.path().exists());
    assert!(!data.join(PATH_FILE).exists());
}
