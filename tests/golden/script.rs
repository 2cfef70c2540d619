//! The language of transcripts. `tests/golden/README.md` describes it; this file parses it.

use std::collections::{BTreeMap, BTreeSet};

/// One scenario: a world of its own, run once per version.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) versions: Vec<&'static str>,
    pub(crate) lines: Vec<Line>,
}

/// One step with the number of the line it stands on.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) number: usize,
    /// Only for these versions; empty means all of the scenario.
    pub(crate) only: BTreeSet<String>,
    pub(crate) step: Step,
}

/// What a line asks for.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Bytes of a client. Adjacent ones of the same client are one read.
    Send(u8, Pattern),
    /// One line of an expected frame, as it stands on the wire.
    FrameLine(u8, Pattern, bool),
    /// One whole expected frame.
    Frame(u8, Expected),
    Beat(u8),
    /// Everything expected was seen and the session has ended.
    Closed(u8),
    /// The session ends; it may say ERROR first.
    ClosedAnyhow(u8),
    /// Any frames, the last an ERROR, then the end.
    FailedAtLast(u8),
    /// The session has not ended.
    Open(u8),
    Connect {
        client: u8,
        version: Option<String>,
        headers: Vec<(String, String)>,
    },
    /// The client's socket dies.
    Hangup(u8),
    Advance(u64),
    Hold(bool),
    Stall(u8, bool),
    Restart,
    Crash,
    Room(bool),
    /// Connections come in by a listener of this dialect from now on.
    Dialect(String),
    /// Logins of connections are judged from now on.
    Judged,
    /// Who the client says it is, as the judge hears it.
    Login(u8, String),
    /// The judgement, and for how long it holds.
    Accept(u8, String, Option<u64>),
    Deny(u8),
    /// The login no longer holds.
    Revoke(u8),
    Limit(String, u64),
    /// An operator states what holds for queues.
    Policy(String, Vec<(String, String)>),
    /// No rules hold any more.
    NoRules,
    /// One more rule: whether it allows, actions, principals, destinations.
    Rule(bool, [String; 3]),
    /// For whom a client's next connection acts: name and groups.
    User(u8, Vec<String>),
    Depth(String, u64),
    Counter(String, u64),
    /// Ends the read of adjacent `C` lines.
    Gap,
}

/// An expected frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) command: Pattern,
    /// In any order.
    pub(crate) headers: Vec<Pattern>,
    /// May be there.
    pub(crate) optional: Vec<Pattern>,
    /// Names that must not be there.
    pub(crate) absent: Vec<Pattern>,
    pub(crate) body: Pattern,
}

/// Bytes with holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Vec<Piece>);

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// `<name>`: bound at its first match, the same text afterwards.
    Var(String),
    /// `<*>`: anything.
    Any,
}

pub(crate) const VERSIONS: [&str; 3] = ["1.0", "1.1", "1.2"];

/// Parses a file into its scenarios.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Scenario>, String> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let blank = |title: &str| Scenario {
        file: file.to_owned(),
        title: title.to_owned(),
        versions: VERSIONS.to_vec(),
        lines: Vec::new(),
    };
    for (at, raw) in text.lines().enumerate() {
        let number = at + 1;
        let fail = |what: &str| format!("{file}:{number}: {what}: {raw}");
        if let Some(title) = raw.strip_prefix("== ") {
            scenarios.push(blank(title));
            continue;
        }
        if raw.starts_with('#') {
            continue;
        }
        if scenarios.is_empty() {
            if raw.trim().is_empty() {
                continue;
            }
            return Err(fail("a scenario begins with `== title`"));
        }
        let scenario = scenarios.last_mut().expect("there is one by now");
        if let Some(list) = raw.strip_prefix("versions: ") {
            scenario.versions = list
                .split_whitespace()
                .map(|word| VERSIONS.into_iter().find(|known| *known == word))
                .collect::<Option<_>>()
                .ok_or_else(|| fail("unknown version"))?;
            continue;
        }
        let (only, rest) = match raw.split_once("| ") {
            Some((list, rest)) if list.split(',').all(|word| VERSIONS.contains(&word)) => {
                (list.split(',').map(str::to_owned).collect(), rest)
            }
            _ => (BTreeSet::new(), raw),
        };
        let step = parse_step(rest).map_err(|what| fail(&what))?;
        scenario.lines.push(Line { number, only, step });
    }
    Ok(scenarios)
}

fn parse_step(line: &str) -> Result<Step, String> {
    if line.trim().is_empty() {
        return Ok(Step::Gap);
    }
    let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
    if let Some((side, client, long)) = speaker(head) {
        return match (side, long, rest) {
            ('C', true, "close") => Ok(Step::Hangup(client)),
            ('C', true, text) => Ok(Step::Send(client, raw_line(text, false)?)),
            ('C', false, text) => Ok(Step::Send(client, short_frame(text)?)),
            (_, true, "close") => Ok(Step::Closed(client)),
            (_, true, "close, with or without ERROR") => Ok(Step::ClosedAnyhow(client)),
            (_, true, "anything, then ERROR and close") => Ok(Step::FailedAtLast(client)),
            (_, true, "open") => Ok(Step::Open(client)),
            (_, true, "beat") => Ok(Step::Beat(client)),
            (_, true, text) => Ok(Step::FrameLine(
                client,
                raw_line(text, true)?,
                text.ends_with("^@"),
            )),
            (_, false, text) => Ok(Step::Frame(client, short_expected(text)?)),
        };
    }
    if let Some(time) = head.strip_prefix('+') {
        let ms = match (time.strip_suffix("ms"), time.strip_suffix('s')) {
            (Some(ms), _) => ms.parse::<u64>().map_err(|e| e.to_string())?,
            (None, Some(s)) => s.parse::<u64>().map_err(|e| e.to_string())? * 1000,
            _ => return Err("a time is +Ns or +Nms".to_owned()),
        };
        return Ok(Step::Advance(ms));
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |text: &str| text.parse::<u64>().map_err(|e| e.to_string());
    match (head, words.as_slice()) {
        ("connect", words) => parse_connect(words),
        ("durable", ["off"]) => Ok(Step::Hold(true)),
        ("durable", ["on"]) => Ok(Step::Hold(false)),
        ("room", ["off"]) => Ok(Step::Room(false)),
        ("room", ["on"]) => Ok(Step::Room(true)),
        ("restart", []) => Ok(Step::Restart),
        ("crash", []) => Ok(Step::Crash),
        ("stall", [client]) => Ok(Step::Stall(client_no(client)?, true)),
        ("resume", [client]) => Ok(Step::Stall(client_no(client)?, false)),
        ("logins", ["judged"]) => Ok(Step::Judged),
        ("login", [client, said]) => Ok(Step::Login(client_no(client)?, (*said).to_owned())),
        ("accept", [client, name]) => Ok(Step::Accept(client_no(client)?, (*name).to_owned(), None)),
        ("accept", [client, name, "for", seconds]) => {
            let ms = number(seconds.strip_suffix('s').ok_or("a time is Ns")?)? * 1000;
            Ok(Step::Accept(client_no(client)?, (*name).to_owned(), Some(ms)))
        }
        ("deny", [client]) => Ok(Step::Deny(client_no(client)?)),
        ("revoke", [client]) => Ok(Step::Revoke(client_no(client)?)),
        ("dialect", [name]) => Ok(Step::Dialect((*name).to_owned())),
        ("limit", [name, value]) => Ok(Step::Limit((*name).to_owned(), number(value)?)),
        ("policy", [pattern, settings @ ..]) => {
            let settings = settings.iter().map(|setting| {
                let (name, value) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
                Ok((name.to_owned(), value.to_owned()))
            });
            let settings: Result<_, String> = settings.collect();
            Ok(Step::Policy((*pattern).to_owned(), settings?))
        }
        ("rules", []) => Ok(Step::NoRules),
        ("rule", [what @ ("allow" | "deny"), actions, "to", who, "on", destinations]) => Ok(Step::Rule(
            *what == "allow",
            [actions, who, destinations].map(|text| (*text).to_owned()),
        )),
        ("user", [client, names @ ..]) => {
            let names = names.iter().map(|name| (*name).to_owned());
            Ok(Step::User(client_no(client)?, names.collect()))
        }
        ("depth", [queue, value]) => Ok(Step::Depth((*queue).to_owned(), number(value)?)),
        ("counter", [name, value]) => Ok(Step::Counter((*name).to_owned(), number(value)?)),
        _ => Err("no such step".to_owned()),
    }
}

/// `C:`, `S2:`, `C>`: the side, the client's number, and whether the long form is meant.
fn speaker(head: &str) -> Option<(char, u8, bool)> {
    let long = head.ends_with(':');
    let name = head.strip_suffix([':', '>'])?;
    let mut chars = name.chars();
    let side = chars.next().filter(|c| matches!(c, 'C' | 'S'))?;
    let digits = chars.as_str();
    let client = if digits.is_empty() {
        1
    } else {
        digits.parse().ok()?
    };
    Some((side, client, long))
}

fn client_no(text: &str) -> Result<u8, String> {
    text.parse().map_err(|e| format!("{e}: {text}"))
}

fn parse_connect(words: &[&str]) -> Result<Step, String> {
    let mut words = words.iter().copied().peekable();
    let mut client = 1;
    let mut version = None;
    if let Some(Ok(number)) = words.peek().map(|word| word.parse::<u8>()) {
        client = number;
        words.next();
    }
    if words.peek() == Some(&"as") {
        words.next();
        version = Some(words.next().ok_or("connect N as VERSION")?.to_owned());
    }
    let headers = words
        .map(|word| word.split_once(':').map(|(n, v)| (n.to_owned(), v.to_owned())))
        .collect::<Option<_>>()
        .ok_or("connect takes name:value")?;
    Ok(Step::Connect {
        client,
        version,
        headers,
    })
}

/// A line as it stands on the wire: LF is added unless it ends with NUL or `^-`.
fn raw_line(text: &str, expected: bool) -> Result<Pattern, String> {
    let (text, open) = match text.strip_suffix("^-") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut pattern = parse_pattern(text)?;
    if !expected && !open && !text.ends_with("^@") {
        pattern.push_bytes(b"\n");
    }
    Ok(pattern)
}

/// `COMMAND name:value name:value | body`, as bytes.
fn short_frame(text: &str) -> Result<Pattern, String> {
    let (head, body) = split_body(text);
    let mut pattern = Pattern::default();
    for word in head.split_whitespace() {
        pattern.extend(parse_pattern(word)?);
        pattern.push_bytes(b"\n");
    }
    pattern.push_bytes(b"\n");
    pattern.extend(parse_pattern(body)?);
    pattern.push_bytes(b"\0");
    Ok(pattern)
}

fn short_expected(text: &str) -> Result<Expected, String> {
    let (head, body) = split_body(text);
    let mut words = head.split_whitespace();
    let mut frame = Expected {
        command: parse_pattern(words.next().ok_or("a frame has a command")?)?,
        body: parse_pattern(body)?,
        ..Expected::default()
    };
    for word in words {
        frame.push_header(word)?;
    }
    // An ERROR's body is for people; the short form says nothing about it.
    if head.starts_with("ERROR") && body.is_empty() {
        frame.body = Pattern(vec![Piece::Any]);
    }
    Ok(frame)
}

fn split_body(text: &str) -> (&str, &str) {
    match text.split_once(" | ") {
        Some((head, body)) => (head, body),
        None => (text.strip_suffix(" |").unwrap_or(text), ""),
    }
}

impl Expected {
    fn push_header(&mut self, word: &str) -> Result<(), String> {
        if let Some(name) = word.strip_prefix('!') {
            self.absent.push(parse_pattern(name)?);
        } else if let Some(header) = word.strip_prefix('?') {
            self.optional.push(parse_pattern(header)?);
        } else {
            self.headers.push(parse_pattern(word)?);
        }
        Ok(())
    }

    /// From the lines of the long form. `!name` and `?name:value` are taken from the text before it is a pattern.
    pub(crate) fn from_lines(lines: &[Pattern]) -> Result<Self, String> {
        let mut lines = lines.iter();
        let mut frame = Self {
            command: lines.next().ok_or("a frame has a command")?.clone(),
            ..Self::default()
        };
        for line in lines.by_ref() {
            if line.0.is_empty() {
                break;
            }
            match line.first_byte() {
                Some(b'!') => frame.absent.push(line.without_first_byte()),
                Some(b'?') => frame.optional.push(line.without_first_byte()),
                _ => frame.headers.push(line.clone()),
            }
        }
        let mut body = Pattern::default();
        for (at, line) in lines.enumerate() {
            if at > 0 {
                body.push_bytes(b"\n");
            }
            body.extend(line.clone());
        }
        body.pop_nul()?;
        frame.body = body;
        Ok(frame)
    }
}

impl Pattern {
    fn push_bytes(&mut self, bytes: &[u8]) {
        if let Some(Piece::Bytes(last)) = self.0.last_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.0.push(Piece::Bytes(bytes.to_vec()));
        }
    }

    fn extend(&mut self, other: Self) {
        for piece in other.0 {
            match piece {
                Piece::Bytes(bytes) => self.push_bytes(&bytes),
                hole => self.0.push(hole),
            }
        }
    }

    /// The name of a header line, if it is spelled out.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        match self.0.first() {
            Some(Piece::Bytes(bytes)) => bytes.iter().position(|byte| *byte == b':').map(|at| &bytes[..at]),
            _ => None,
        }
    }

    fn first_byte(&self) -> Option<u8> {
        match self.0.first() {
            Some(Piece::Bytes(bytes)) => bytes.first().copied(),
            _ => None,
        }
    }

    fn without_first_byte(&self) -> Self {
        let mut copy = self.clone();
        if let Some(Piece::Bytes(bytes)) = copy.0.first_mut() {
            bytes.remove(0);
        }
        copy
    }

    fn pop_nul(&mut self) -> Result<(), String> {
        match self.0.last_mut() {
            Some(Piece::Bytes(bytes)) if bytes.last() == Some(&0) => {
                bytes.pop();
                Ok(())
            }
            _ => Err("an expected frame ends with ^@".to_owned()),
        }
    }

    /// The bytes with every variable filled in.
    pub(crate) fn fill(&self, vars: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Var(name) => out.extend_from_slice(
                    vars.get(name)
                        .ok_or_else(|| format!("<{name}> is not bound yet"))?,
                ),
                Piece::Any => return Err("<*> can only be expected, not sent".to_owned()),
            }
        }
        Ok(out)
    }

    /// Whether the text fits; binds what is unbound.
    pub(crate) fn fits(&self, text: &[u8], vars: &mut BTreeMap<String, Vec<u8>>) -> bool {
        let mut bound = vars.clone();
        let fits = fits(&self.0, text, &mut bound);
        if fits {
            *vars = bound;
        }
        fits
    }
}

fn fits(pieces: &[Piece], text: &[u8], vars: &mut BTreeMap<String, Vec<u8>>) -> bool {
    let Some((first, rest)) = pieces.split_first() else {
        return text.is_empty();
    };
    match first {
        Piece::Bytes(bytes) => text
            .strip_prefix(bytes.as_slice())
            .is_some_and(|left| fits(rest, left, vars)),
        Piece::Any => (0..=text.len()).any(|at| {
            let mut trial = vars.clone();
            let fits = fits(rest, &text[at..], &mut trial);
            if fits {
                *vars = trial;
            }
            fits
        }),
        Piece::Var(name) => match vars.get(name).cloned() {
            Some(value) => text
                .strip_prefix(value.as_slice())
                .is_some_and(|left| fits(rest, left, vars)),
            None => (1..=text.len()).any(|at| {
                // Different names are different texts: two messages have two ids, two sessions too.
                if vars.values().any(|value| *value == text[..at]) {
                    return false;
                }
                let mut trial = vars.clone();
                trial.insert(name.clone(), text[..at].to_vec());
                let fits = fits(rest, &text[at..], &mut trial);
                if fits {
                    *vars = trial;
                }
                fits
            }),
        },
    }
}

/// Caret notation (`^@` NUL, `^J` LF, `^M` CR, `^^` a caret, `^xHH` any octet), `<name>`, `<*>`, `<N*text>`.
fn parse_pattern(text: &str) -> Result<Pattern, String> {
    let mut pattern = Pattern::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c == '^' {
            let sign = after.chars().next().ok_or("a caret stands before something")?;
            rest = &after[sign.len_utf8()..];
            match sign {
                '@' => pattern.push_bytes(b"\0"),
                'J' => pattern.push_bytes(b"\n"),
                'M' => pattern.push_bytes(b"\r"),
                '_' => pattern.push_bytes(b" "),
                '^' => pattern.push_bytes(b"^"),
                'x' => {
                    let hex = rest.get(..2).ok_or("^xHH")?;
                    pattern.push_bytes(&[u8::from_str_radix(hex, 16).map_err(|e| e.to_string())?]);
                    rest = &rest[2..];
                }
                other => return Err(format!("^{other} means nothing")),
            }
            continue;
        }
        if c == '<' {
            let (name, left) = after
                .split_once('>')
                .ok_or("`<` is closed by `>`; ^x3C is a plain one")?;
            rest = left;
            if name == "*" {
                pattern.0.push(Piece::Any);
            } else if let Some((count, unit)) = name.split_once('*') {
                let count: usize = count.parse().map_err(|e| format!("{e}: <{name}>"))?;
                pattern.push_bytes(unit.repeat(count).as_bytes());
            } else {
                pattern.0.push(Piece::Var(name.to_owned()));
            }
            continue;
        }
        let mut utf8 = [0; 4];
        pattern.push_bytes(c.encode_utf8(&mut utf8).as_bytes());
        rest = after;
    }
    Ok(pattern)
}
