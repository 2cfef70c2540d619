//! Messages as they are printed: gathered, and written in one go before they are acknowledged.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::cli::show::{escaped, hex};
use crate::client::{Frame, unescape};

#[derive(Debug)]
pub(super) struct Page {
    form: Form,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Bodies with a line end behind each.
    Lines,
    /// The same for people.
    Terminal,
    /// Bodies alone.
    Raw,
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    message_id: Option<String>,
    destination: Option<String>,
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

impl Page {
    pub(super) fn new(json: bool, raw: bool) -> Self {
        let form = match (json, raw) {
            (true, _) => Form::Json,
            (_, true) => Form::Raw,
            _ if io::stdout().is_terminal() => Form::Terminal,
            _ => Form::Lines,
        };
        Self {
            form,
            bytes: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn message(&mut self, frame: &Frame<'_>) {
        match self.form {
            Form::Raw | Form::Lines => self.bytes.extend_from_slice(frame.body),
            Form::Terminal => self.bytes.extend_from_slice(for_people(frame.body).as_bytes()),
            Form::Json => {
                let line = line(frame);
                serde_json::to_writer(&mut self.bytes, &line)
                    .expect("text and numbers are JSON, and a vector takes them");
            }
        }
        if self.form != Form::Raw {
            self.bytes.push(b'\n');
        }
    }

    /// Writes and flushes; false if nobody reads any more.
    pub(super) fn print(&mut self) -> io::Result<bool> {
        let mut out = io::stdout().lock();
        let done = out.write_all(&self.bytes).and_then(|()| out.flush());
        self.bytes.clear();
        match done {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            done => done.map(|()| true),
        }
    }
}

fn line<'a>(frame: &Frame<'a>) -> Line<'a> {
    let plain = |raw| String::from_utf8_lossy(&unescape(raw)).into_owned();
    let body = std::str::from_utf8(frame.body).ok();
    Line {
        message_id: frame.text("message-id"),
        destination: frame.text("destination"),
        headers: frame
            .headers()
            .map(|(name, value)| (plain(name), plain(value)))
            .collect(),
        body,
        body_hex: body.is_none().then(|| hex(frame.body)),
    }
}

/// A body that cannot play tricks with a terminal; line ends and tabs stay.
fn for_people(body: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(body) else {
        return body.escape_ascii().to_string();
    };
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| line.split('\t').map(escaped).collect::<Vec<_>>().join("\t"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Decoder;

    fn printed(form: Form, bytes: &[u8]) -> String {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        let mut page = Page {
            form,
            bytes: Vec::new(),
        };
        while let Some(frame) = decoder.next_frame().unwrap() {
            page.message(&frame);
        }
        String::from_utf8_lossy(&page.bytes).into_owned()
    }

    #[test]
    fn each_form_prints_its_way() {
        let text = b"MESSAGE\nmessage-id:1\ndestination:/queue/a\nk:a\\cb\\nc\n\nab\x1b[2J\tc\nd\0";
        assert_eq!(printed(Form::Lines, text), "ab\x1b[2J\tc\nd\n");
        assert_eq!(printed(Form::Raw, text), "ab\x1b[2J\tc\nd");
        assert_eq!(printed(Form::Terminal, text), "ab\\u{1b}[2J\tc\nd\n");
        assert_eq!(
            printed(Form::Json, text),
            concat!(
                r#"{"message_id":"1","destination":"/queue/a","headers":[["message-id","1"],["destination","#,
                r#""/queue/a"],["k","a:b\nc"]],"body":"ab\u001b[2J\tc\nd"}"#,
                "\n"
            )
        );
        let binary = b"MESSAGE\ncontent-length:3\n\n\xff\0a\0";
        assert_eq!(printed(Form::Terminal, binary), "\\xff\\x00a\n");
        assert!(printed(Form::Json, binary).contains(r#""body_hex":"ff0061""#));
    }
}
