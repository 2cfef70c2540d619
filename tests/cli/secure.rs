//! Commands that connect by TLS.

use std::process::{Command, Output};

use super::certificates::{Authority, Folder};
use super::rig::Settings;

/// Runs a command with files of a folder as the values of these flags.
fn run(args: &[&str], addr: &str, folder: &Folder, files: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.env_clear().args(args).args(["--addr", addr, "--tls"]);
    for (flag, name) in files {
        command.arg(flag).arg(folder.path(name));
    }
    command.output().unwrap()
}

#[test]
fn send_receive_and_bench_speak_tls_and_show_a_certificate() {
    let folder = Folder::new();
    let (certificate, key) = folder.authority.client("alice");
    folder.write("alice.pem", &certificate);
    folder.write("alice.key", &key);
    folder.write("other.pem", &Authority::new().pem());
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        config: format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\ntransport = \"tls\"\ncertificate_file = {:?}\nkey_file = {:?}\n\
             client_certificate = \"required\"\nclient_ca_file = {:?}\n",
            folder.path("server.pem"),
            folder.path("server.key"),
            folder.path("ca.pem")
        ),
        ..Settings::in_dir(dir.path())
    };
    let broker = settings.start();
    let addr = broker.listener(1).to_string();
    let all = [
        ("--ca", "ca.pem"),
        ("--cert", "alice.pem"),
        ("--key", "alice.key"),
    ];
    let well = |args: &[&str]| {
        let output = run(args, &addr, &folder, &all);
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {problem}");
        String::from_utf8(output.stdout).unwrap()
    };
    let sent = well(&["send", "/queue/q", "one pair of shoes"]);
    assert_eq!(sent, "1 message sent and confirmed\n");
    assert_eq!(
        well(&["receive", "/queue/q", "--count", "1"]),
        "one pair of shoes\n"
    );
    // More than buffers hold, in both directions at once.
    let report = well(&["bench", "e2e", "--count", "5000", "--size", "4096", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["valid"], true, "{report}");

    for (files, expected) in [
        (&[("--ca", "other.pem")][..], "invalid peer certificate"),
        (&[("--ca", "ca.pem")], "received fatal alert"),
        (&[("--ca", "missing.pem")], "missing.pem"),
        (&[("--ca", "alice.key")], "there is no authority to believe"),
    ] {
        let output = run(&["send", "/queue/q", "x"], &addr, &folder, files);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{files:?}: {problem}");
        assert!(problem.contains(expected), "{files:?}: {problem}");
    }
    broker.stop();
}
