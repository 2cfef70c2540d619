//! @stomp/stompjs in a page, in a browser that nobody here wrote: Chromium without a window, Debian's package, which
//! `scripts/test` installs. Where it is missing the tests fail.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::certificates::Folder;
use super::rig::{Broker, Settings};
use super::{node, scripts, tls_keys};

/// How long a page may take, the browser's start with it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server of one page and its library, and of what the page says in the end.
struct Site(TcpListener);

impl Site {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// What a browser calls it. By another name of the same address it is another origin.
    fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.0.local_addr().unwrap().port())
    }

    /// Serves until the page has said what came of it.
    fn result(&self, browser: &mut Browser) -> String {
        let begin = Instant::now();
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    if let Some(result) = answer(stream) {
                        return result;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
            let ended = browser.0.try_wait().unwrap();
            assert!(ended.is_none(), "the browser ended: {ended:?}");
            assert!(begin.elapsed() < PATIENCE, "the page says nothing");
        }
    }
}

/// Answers one request; what was posted, if something was.
fn answer(stream: TcpStream) -> Option<String> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // Browsers open connections that they may not need.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let length = lines
        .iter()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let target = lines[0].split(' ').nth(1).unwrap();
    let bundles = node().join("node_modules/@stomp/stompjs/bundles");
    let (kind, content) = match target.split('?').next().unwrap() {
        "/" => ("text/html", fs::read(scripts().join("page.html")).unwrap()),
        "/stomp.umd.js" => ("text/javascript", fs::read(bundles.join("stomp.umd.js")).unwrap()),
        _ => ("text/plain", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        content.len()
    );
    let mut stream = &stream;
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content).unwrap();
    (target == "/result").then(|| String::from_utf8(body).unwrap())
}

/// A browser at a page, with the processes that it starts.
struct Browser(Child);

impl Browser {
    fn open(url: &str, profile: &Path) -> Self {
        let child = Command::new("chromium-headless-shell")
            // The tests run as root, and certificates are those of the test. Nothing outside is asked for anything.
            .args(["--no-sandbox", "--ignore-certificate-errors", "--disable-gpu"])
            .args(["--disable-background-networking", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .env("HOME", profile)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium-headless-shell is there, as scripts/test sees to");
        Self(child)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// What a page says that was served by this name of the site.
fn page(site: &Site, host: &str, broker: &str, welcome: bool) -> String {
    let profile = tempfile::tempdir().unwrap();
    let welcome = if welcome { "yes" } else { "no" };
    let url = format!(
        "{}/?broker={broker}&welcome={welcome}&name={host}",
        site.origin(host)
    );
    let mut browser = Browser::open(&url, profile.path());
    site.result(&mut browser)
}

/// A broker that lets in pages of the site, by one of its names.
fn broker(dir: &Path, site: &Site, transport: &str) -> Broker {
    let settings = Settings {
        config: super::listener_of(&format!(
            "{transport}origins = [\"{}\"]\n",
            site.origin("127.0.0.1")
        )),
        ..Settings::in_dir(dir)
    };
    settings.start()
}

#[test]
fn a_page_over_websocket() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::start());
    let broker = broker(dir.path(), &site, "transport = \"ws\"\n");
    let address = format!("ws://127.0.0.1:{}/ws", broker.listener(1).port());
    assert_eq!(page(&site, "127.0.0.1", &address, true), "done");
    broker.stop();
}

#[test]
fn a_page_over_websocket_and_tls() {
    let (dir, site, folder) = (tempfile::tempdir().unwrap(), Site::start(), Folder::new());
    let broker = broker(dir.path(), &site, &tls_keys("wss", &folder));
    let address = format!("wss://127.0.0.1:{}/", broker.listener(1).port());
    assert_eq!(page(&site, "127.0.0.1", &address, true), "done");
    broker.stop();
}

#[test]
fn a_page_of_an_origin_that_is_not_listed_is_turned_away() {
    let (dir, site) = (tempfile::tempdir().unwrap(), Site::start());
    let broker = broker(dir.path(), &site, "transport = \"ws\"\n");
    let address = format!("ws://127.0.0.1:{}/ws", broker.listener(1).port());
    assert_eq!(page(&site, "localhost", &address, false), "done");
    let log = broker.stop();
    assert!(log.contains("request refused: 403 Forbidden"), "{log}");
}
