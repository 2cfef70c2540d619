//! The architecture as a test: who may import whom, who may read a clock, who may name an engine.
//!
//! The floors are those of `src/lib.rs` and `docs/ARCHITECTURE.md`. A module may use the floors below its own, and
//! nothing on its own floor: `session`, `broker` and `store` do not know each other.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::collections::BTreeMap;
use std::path::Path;

/// The modules under `src`, each with its floor; a higher number is a higher floor.
const FLOORS: &[(&str, u32)] = &[
    ("main", 100),
    ("cli", 90),
    ("admin", 80),
    ("sim", 80),
    ("runtime", 70),
    ("client", 60),
    ("listener", 60),
    ("metrics", 60),
    ("migrate", 60),
    ("telemetry", 60),
    ("session", 50),
    ("broker", 50),
    ("store", 50),
    ("acl", 45),
    ("auth", 40),
    ("config", 40),
    ("wire", 30),
    ("port", 25),
    ("api", 25),
    ("journal", 20),
    ("selector", 15),
    ("base", 10),
];

/// Modules that may use less than their floor allows.
const ONLY: &[(&str, &[&str])] = &[
    // The configuration is read before anything runs, and by everything that does.
    ("config", &["base"]),
    // What a login is, is said below; who judges it when, above.
    ("auth", &["base"]),
    // The client behind `send`, `receive` and `bench` knows the wire and nothing of the broker.
    ("client", &["wire", "base"]),
    // The protocol machine meets the core in `port` alone: what is stored is not its affair.
    ("session", &["port", "wire", "selector", "base"]),
    ("port", &["selector", "base"]),
    ("api", &["base"]),
    ("wire", &["base"]),
    ("journal", &["base"]),
    ("selector", &["base"]),
];

/// Reading a clock or entropy.
const CLOCKS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Uuid::new_v4",
    "getrandom",
    "thread_rng",
];

/// Where that is allowed: the runtime hands both down as arguments; the load tool, the commands and the command of the
/// simulation measure with a clock of their own and are no part of the broker.
const CLOCK_READERS: &[&str] = &[
    "src/runtime/",
    "src/cli/bench/",
    "src/cli/clock.rs",
    "src/sim/main.rs",
];

/// What a pure machine cannot name: IO, threads, async, and maps whose order differs from run to run.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::io",
    "std::env",
    "tokio",
    "async",
    "HashMap",
    "HashSet",
];

const PURE: &[&str] = &[
    "src/base/",
    "src/port/",
    "src/broker/",
    "src/selector/",
    "src/session/",
];

/// The files that may say `unsafe`, each with its reason beside it.
const UNSAFE: &[&str] = &["src/runtime/allocator.rs", "src/store/sled/sync_file_range.rs"];

/// Source without comments and without the insides of strings, so that prose is no import.
fn code_of(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &rest[hashes + 2..];
            rest = body.find(&close).map_or("", |end| &body[end + close.len()..]);
            out.push_str("\"\"");
        } else if c == '"' {
            rest = after_string(&rest[1..]);
            out.push_str("\"\"");
        } else if let Some(end) = char_literal(rest) {
            rest = &rest[end..];
            out.push_str("' '");
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The length of a character literal; a lifetime is none.
fn char_literal(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if let Some(escape) = body.strip_prefix('\\') {
        return escape[1..].find('\'').map(|end| end + 4);
    }
    let c = body.chars().next()?;
    body[c.len_utf8()..].starts_with('\'').then_some(c.len_utf8() + 2)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a path begins: the word itself, not the end of a longer one.
fn places(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            let before = code[..*at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            let ends_in_word = word.ends_with(is_word);
            !(before.is_some_and(is_word) || ends_in_word && after.is_some_and(is_word))
        })
        .collect()
}

/// The first names of a path, or of each path in braces: `a::b` gives `a`, `{a::b, c}` gives `a` and `c`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else {
        return vec![path.chars().take_while(|c| is_word(*c)).collect()];
    };
    let mut names = Vec::new();
    let (mut depth, mut name, mut fresh) = (0, String::new(), true);
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                fresh = true;
            }
            c if depth == 0 && fresh && is_word(c) => name.push(c),
            c if c.is_whitespace() && name.is_empty() => {}
            _ => fresh = false,
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// The module that a file belongs to, and how deep in it the file lies.
fn module_of(path: &str) -> (String, usize) {
    let inner = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    let depth = inner.split('/').count();
    (inner.split('/').next().unwrap().to_owned(), depth)
}

/// Every module of this crate that a file names.
fn imports(path: &str, code: &str) -> Vec<String> {
    let (_, depth) = module_of(path);
    let mut found = Vec::new();
    for at in places(code, "crate::") {
        found.extend(first_names(&code[at + "crate::".len()..]));
    }
    // `super::super::` may climb out of the module as well.
    for at in places(code, "super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut steps = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            rest = after;
            steps += 1;
        }
        if steps >= depth {
            let known = |name: &String| FLOORS.iter().any(|(module, _)| module == name);
            found.extend(first_names(rest).into_iter().filter(known));
        }
    }
    found
}

fn floor_of(module: &str) -> Option<u32> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

/// Imports that run upward or sideways.
fn wrong_imports(path: &str, source: &str) -> Vec<String> {
    let code = code_of(source);
    let (module, _) = module_of(path);
    if module == "lib" {
        return Vec::new();
    }
    let Some(floor) = floor_of(&module) else {
        return vec![format!("{path}: module {module} has no floor")];
    };
    let mut wrong = Vec::new();
    for name in imports(path, &code) {
        if name == module {
            continue;
        }
        let below = floor_of(&name).is_some_and(|below| below < floor);
        let listed = ONLY
            .iter()
            .find(|(of, _)| *of == module)
            .is_none_or(|(_, only)| only.contains(&name.as_str()));
        if !below || !listed {
            wrong.push(format!("{path}: {module} must not import {name}"));
        }
    }
    wrong
}

/// Clock and entropy outside their readers.
fn wrong_clocks(path: &str, source: &str) -> Vec<String> {
    if CLOCK_READERS.iter().any(|folder| path.starts_with(folder)) {
        return Vec::new();
    }
    naming(path, source, CLOCKS)
}

/// IO, threads, async and unordered maps in a pure machine. Its tests may use what they like.
fn wrong_purity(path: &str, source: &str) -> Vec<String> {
    let pure = PURE.iter().any(|place| path.starts_with(place));
    if !pure || path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    naming(path, source, IMPURE)
}

fn wrong_unsafe(path: &str, source: &str) -> Vec<String> {
    if UNSAFE.contains(&path) {
        return Vec::new();
    }
    naming(path, source, &["unsafe"])
}

/// Engines are named in one place each, so that they can be left.
fn wrong_engines(path: &str, source: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if path != "src/journal/codec.rs" && !path.starts_with("src/journal/codec/") {
        wrong.extend(naming(path, source, &["bincode"]));
    }
    if !path.starts_with("src/store/sled/") {
        let code = code_of(source);
        // Beside `mod sled;` and behind `store::` the name is that of our own folder.
        let own = places(&code, "mod sled").len() + places(&code, "store::sled").len() > 0;
        if !own && !places(&code, "sled::").is_empty() {
            wrong.push(format!("{path}: sled is named"));
        }
    }
    wrong
}

fn naming(path: &str, source: &str, words: &[&str]) -> Vec<String> {
    let code = code_of(source);
    words
        .iter()
        .filter(|word| !places(&code, word).is_empty())
        .map(|word| format!("{path}: {word} is named"))
        .collect()
}

fn sources() -> BTreeMap<String, String> {
    fn gather(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(root, &path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    gather(root, &root.join("src"), &mut found);
    assert!(found.len() > 20, "the sources were found");
    found
}

fn check(rule: fn(&str, &str) -> Vec<String>) {
    let wrong: Vec<String> = sources()
        .iter()
        .flat_map(|(path, source)| rule(path, source))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_run_down_the_floors() {
    check(wrong_imports);
}

#[test]
fn clock_and_entropy_are_read_in_the_runtime() {
    check(wrong_clocks);
}

#[test]
fn machines_are_pure() {
    check(wrong_purity);
}

#[test]
fn engines_are_named_in_one_place() {
    check(wrong_engines);
}

#[test]
fn unsafe_stands_where_it_is_documented() {
    check(wrong_unsafe);
}

/// Each rule notices what it is there for, and lets pass what is right.
#[test]
fn each_rule_can_fail() {
    type Rule = fn(&str, &str) -> Vec<String>;
    let wrong: &[(Rule, &str, &str)] = &[
        (
            wrong_imports,
            "src/broker/queue.rs",
            "use crate::session::Session;",
        ),
        (wrong_imports, "src/broker/queue.rs", "use crate::runtime;"),
        (
            wrong_imports,
            "src/broker/queue.rs",
            "use crate::{base::Seq, store::Store};",
        ),
        (
            wrong_imports,
            "src/broker/queue.rs",
            "use crate::{\n    base::{Seq, Tag},\n    session,\n};",
        ),
        (
            wrong_imports,
            "src/broker/queue.rs",
            "fn f() -> crate::store::StoreStats { todo() }",
        ),
        (
            wrong_imports,
            "src/broker/queue.rs",
            "use super::super::store::Store;",
        ),
        (wrong_imports, "src/broker/mod.rs", "use super::session::Session;"),
        (wrong_imports, "src/session/send.rs", "use crate::journal::Fact;"),
        (wrong_imports, "src/store/memory.rs", "use crate::broker::Broker;"),
        (wrong_imports, "src/config/mod.rs", "use crate::wire::Version;"),
        (wrong_imports, "src/client/mod.rs", "use crate::port::Request;"),
        (wrong_imports, "src/base/ids.rs", "use crate::journal::Meta;"),
        (wrong_imports, "src/port/mod.rs", "use crate::wire::Version;"),
        (wrong_imports, "src/wire/mod.rs", "use crate::port::Send;"),
        (wrong_imports, "src/runtime/core.rs", "use crate::cli::Serve;"),
        (wrong_imports, "src/novelty.rs", ""),
        (wrong_clocks, "src/broker/mod.rs", "let now = Instant::now();"),
        (wrong_clocks, "src/sim/world/mod.rs", "let now = Instant::now();"),
        (wrong_clocks, "src/store/mod.rs", "let id = uuid::Uuid::new_v4();"),
        (wrong_clocks, "src/session/mod.rs", "std::time::SystemTime::now()"),
        (wrong_purity, "src/session/mod.rs", "async fn read() {}"),
        (
            wrong_purity,
            "src/broker/mod.rs",
            "use std::collections::HashMap;",
        ),
        (
            wrong_purity,
            "src/broker/mod.rs",
            "let file = std::fs::read(path);",
        ),
        (wrong_engines, "src/broker/mod.rs", "use bincode::Encode;"),
        (wrong_engines, "src/journal/mod.rs", "bincode::encode(x)"),
        (wrong_engines, "src/runtime/core.rs", "use sled::Db;"),
        (wrong_unsafe, "src/broker/mod.rs", "unsafe { *pointer }"),
    ];
    for (rule, path, source) in wrong {
        assert!(!rule(path, source).is_empty(), "not noticed in {path}: {source}");
    }
    let right: &[(Rule, &str, &str)] = &[
        (
            wrong_imports,
            "src/broker/queue.rs",
            "use crate::base::Seq;\nuse super::ledger::Ledger;",
        ),
        (
            wrong_imports,
            "src/broker/queue.rs",
            "// Not here: crate::store::Store.\nlet s = \"crate::session\";",
        ),
        (
            wrong_imports,
            "src/runtime/core.rs",
            "use crate::{broker::Broker, session, store::{Store, sled}};",
        ),
        (
            wrong_imports,
            "src/session/tests/helpers.rs",
            "use super::super::line::Line;",
        ),
        (wrong_clocks, "src/runtime/clock.rs", "Instant::now()"),
        (wrong_clocks, "src/runtime/server.rs", "TcpSocket::new_v4()"),
        (
            wrong_clocks,
            "src/broker/mod.rs",
            "/// Not `Instant::now`.\nlet quote = '\"'; let text = r#\"Instant::now\"#;",
        ),
        (
            wrong_purity,
            "src/broker/tests.rs",
            "use std::collections::HashMap;",
        ),
        (
            wrong_engines,
            "src/store/mod.rs",
            "mod sled;\npub use sled::SledStore;",
        ),
        (
            wrong_engines,
            "src/cli/inspect.rs",
            "let store = crate::store::sled::open();",
        ),
        (
            wrong_unsafe,
            "src/runtime/allocator.rs",
            "unsafe { mallopt(1, 2) }",
        ),
    ];
    for (rule, path, source) in right {
        assert_eq!(rule(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
