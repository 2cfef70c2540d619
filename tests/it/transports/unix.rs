//! Unix sockets.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use steadfast::base::Dialect;
use steadfast::config::Address;
use steadfast::runtime::{RunError, Running};
use steadfast::store::MemoryStore;

use super::*;

fn unix(path: &Path, mode: u32) -> Listener {
    Listener {
        address: Address::Unix {
            path: path.to_owned(),
            mode,
        },
        dialect: Dialect::default(),
        ..any()
    }
}

fn connect(path: &Path) -> Client<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream).logged_in()
}

#[test]
fn a_process_of_this_machine_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stomp.sock");
    // Left over from a broker that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let mut server = serve(unix(&path, 0o640), |_| {});
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let mut client = connect(&path);
    client.subscribe("q", "auto", "");
    for number in 0..200 {
        client.publish("q", &number.to_string(), "");
        client.expect_message(&number.to_string());
    }
    let api = server.started().api.clone().unwrap();
    let connections = crate::http::ask(&api, "GET", "/v1/connections", "").unwrap();
    let connections = connections.text();
    let me = format!(
        "unix:uid={},pid={}",
        rustix::process::geteuid().as_raw(),
        std::process::id()
    );
    assert!(connections.contains(&me), "{connections}");
    client.disconnect();
    server.stop();
    assert!(!path.exists(), "it is gone with the broker");
}

#[test]
fn a_socket_in_use_and_a_file_in_the_way_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stomp.sock");
    let refused = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let options = ServeOptions {
            listen: vec![unix(&path, 0o600)],
            data_dir: dir.path().to_owned(),
            ..ServeOptions::default()
        };
        match Running::start(Arc::new(MemoryStore::new([0; 16])), &options).map(|_| ()) {
            Err(error @ RunError::Listen { .. }) => {
                let expected = format!("cannot listen on unix:{}", path.display());
                assert_eq!(error.to_string(), expected);
            }
            other => panic!("{other:?}"),
        }
    };
    std::fs::write(&path, "mine").unwrap();
    refused();
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    refused();
    assert!(UnixStream::connect(&path).is_ok(), "the other is not disturbed");
}
