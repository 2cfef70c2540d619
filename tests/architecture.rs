//! The shape of the code, as `docs/ARCHITECTURE.md` draws it: imports go down only, clocks and entropy are read in
//! one place, the store's engine and the encoding of facts are each named in one.
//!
//! It reads the source as text, without comments and without the tests beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may name. Everything may name `base`.
const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &[]),
    ("port", &[]),
    ("journal", &[]),
    ("client", &[]),
    ("config", &[]),
    ("session", &["wire", "port"]),
    ("broker", &["port", "journal"]),
    ("store", &["journal"]),
    ("telemetry", &["config"]),
    ("runtime", &["session", "broker", "store", "port", "journal"]),
    (
        "cli",
        &[
            "runtime",
            "telemetry",
            "config",
            "session",
            "broker",
            "store",
            "client",
            "wire",
            "port",
            "journal",
        ],
    ),
];

/// What only some places may name, and where.
const SEAMS: &[(&str, &[&str])] = &[
    ("Instant::now", &["runtime/clock.rs", "cli/bench/clock.rs"]),
    ("SystemTime::now", &["runtime/clock.rs", "cli/bench/clock.rs"]),
    ("Uuid::", &["runtime/entropy.rs"]),
    ("thread::sleep", &["cli/bench/clock.rs"]),
    ("unbounded_channel", &[]),
    (
        "unsafe",
        &["runtime/allocator.rs", "store/sled/sync_file_range.rs"],
    ),
    ("::sled", &["store/sled/"]),
    ("bincode", &["journal/codec.rs"]),
    ("tokio", &["runtime/"]),
    ("clap", &["cli/"]),
    ("toml::", &["config/"]),
    ("libc", &["runtime/allocator.rs", "store/sled/sync_file_range.rs"]),
];

/// Floors without IO, tasks, locks or hashing that differs from run to run.
const PURE: &[&str] = &["base", "wire", "port", "journal", "session", "broker"];

const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::time",
    "async ",
    "Mutex",
    "RwLock",
    "HashMap",
    "HashSet",
    "tracing::",
];

/// Every source file but tests: its path under `src`, and its text without comments.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the source") {
            let path: PathBuf = entry.expect("an entry of the source").path();
            let name = path
                .strip_prefix(&root)
                .expect("it lies below")
                .to_string_lossy()
                .replace('\\', "/");
            let is_test =
                name.ends_with("tests.rs") || name.contains("/tests/") || name == "store/conformance.rs";
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !is_test {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                sources.insert(name, code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    assert!(sources.len() > 30, "the source was found");
    sources
}

/// The module a file belongs to.
fn module(name: &str) -> &str {
    name.split('/').next().unwrap_or(name).trim_end_matches(".rs")
}

/// Each place where `word` begins in `text` without being part of a longer word.
fn mentions(text: &str, word: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let begins = word.starts_with(is_word);
    let ends = word.ends_with(is_word);
    text.match_indices(word)
        .filter(|(at, _)| !begins || !text[..*at].ends_with(is_word))
        .filter(|(at, _)| !ends || !text[at + word.len()..].starts_with(is_word))
        .count()
}

#[test]
fn imports_go_down() {
    let mut problems = Vec::new();
    for (name, code) in sources() {
        let from = module(&name);
        if matches!(from, "lib" | "main") {
            continue;
        }
        let (_, allowed) = FLOORS
            .iter()
            .find(|(floor, _)| *floor == from)
            .unwrap_or_else(|| panic!("src/{name}: the table of floors does not have {from}"));
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let to: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            assert!(
                !to.is_empty(),
                "src/{name}: name one module after crate::, so that this test can read it"
            );
            if to != from && to != "base" && !allowed.contains(&to.as_str()) {
                problems.push(format!("src/{name} names {to}"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_table_of_floors_has_no_circle() {
    let mut below: Vec<&str> = Vec::new();
    for (floor, allowed) in FLOORS {
        assert!(
            allowed.iter().all(|to| below.contains(to)),
            "{floor} names what does not stand before it"
        );
        below.push(floor);
    }
    let lib =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        assert!(
            below.contains(&line.trim_end_matches(';')),
            "{line} is not in the table of floors"
        );
    }
}

#[test]
fn seams_are_named_where_they_are() {
    let mut problems = Vec::new();
    for (name, code) in sources() {
        for (word, places) in SEAMS {
            if mentions(&code, word) > 0 && !places.iter().any(|place| name.starts_with(place)) {
                problems.push(format!("src/{name} names {word}"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn machines_are_pure() {
    let mut problems = Vec::new();
    for (name, code) in sources() {
        for word in IMPURE.iter().filter(|_| PURE.contains(&module(&name))) {
            if mentions(&code, word) > 0 {
                problems.push(format!("src/{name} names {word}"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_word_within_a_word_is_none() {
    for (text, word, count) in [
        ("unsafe fn f()", "unsafe", 1),
        ("#![deny(unsafe_code)]", "unsafe", 0),
        ("#[unsafe(no_mangle)]", "unsafe", 1),
        ("self::sled::Db; ::sled::Db", "::sled", 2),
        ("tokio::spawn; not_tokio::x", "tokio", 1),
    ] {
        assert_eq!(mentions(text, word), count, "{word} in {text}");
    }
}
