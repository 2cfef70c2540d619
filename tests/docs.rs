//! The documents say what the code says.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use steadfast::base::{ChunkNo, ChunkRef, Dialect, Epoch, Seq, SlotNo};
use steadfast::port::Refusal;
use steadfast::runtime::{ApiCode, METRICS, refusal_status};
use steadfast::session::{CODES, REFUSALS, dialect_table};
use steadfast::store::{BackupError, StoreError};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first cells of every row that begins with a code.
fn rows(document: &str, cell_count: usize) -> BTreeSet<Vec<String>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = |row: &str| {
        row.split(" | ")
            .take(cell_count)
            .map(|cell| cell.trim_matches('`').to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

fn same<T: Ord + std::fmt::Debug>(listed: &BTreeSet<T>, expected: &BTreeSet<T>) {
    let missing: Vec<_> = expected.difference(listed).collect();
    let wrong: Vec<_> = listed.difference(expected).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "missing: {missing:#?}\nlisted, but not so: {wrong:#?}"
    );
}

/// One of each. A new variant fails to compile in `is_listed`, and belongs here and in the document.
fn store_errors() -> Vec<StoreError> {
    let source = || io::Error::other("why");
    let path = || "folder".into();
    let place = ChunkRef {
        slot: SlotNo(0),
        chunk: ChunkNo(0),
    };
    vec![
        StoreError::Append {
            seq: Seq(1),
            source: source(),
        },
        StoreError::Flush { source: source() },
        StoreError::Damaged { what: String::new() },
        StoreError::File {
            operation: "open",
            path: path(),
            source: source(),
        },
        StoreError::Gone(place),
        StoreError::InUse(path()),
        StoreError::NotEmpty(path()),
        StoreError::RestoreUnfinished(path()),
        StoreError::NewerFormat { found: 3, known: 2 },
        StoreError::UnknownFact { tag: 9 },
        StoreError::Poisoned,
        StoreError::Fenced { current: Epoch(1) },
    ]
}

/// The same for backups.
fn backup_errors() -> Vec<BackupError> {
    let what = String::new;
    vec![
        BackupError::Read(io::Error::other("why")),
        BackupError::NotABackup,
        BackupError::NewerFormat { found: 2, known: 1 },
        BackupError::Incomplete { at: 0 },
        BackupError::Damaged { at: 0, what: what() },
        BackupError::Contradictory { what: what() },
    ]
}

fn is_listed_of_backups(error: &BackupError) -> bool {
    match error {
        BackupError::Read(_)
        | BackupError::NotABackup
        | BackupError::NewerFormat { .. }
        | BackupError::Incomplete { .. }
        | BackupError::Damaged { .. }
        | BackupError::Contradictory { .. } => true,
    }
}

fn is_listed(error: &StoreError) -> bool {
    match error {
        StoreError::Append { .. }
        | StoreError::Flush { .. }
        | StoreError::Damaged { .. }
        | StoreError::File { .. }
        | StoreError::Gone(_)
        | StoreError::InUse(_)
        | StoreError::NotEmpty(_)
        | StoreError::RestoreUnfinished(_)
        | StoreError::NewerFormat { .. }
        | StoreError::UnknownFact { .. }
        | StoreError::Poisoned
        | StoreError::Fenced { .. } => true,
    }
}

#[test]
fn every_code_is_listed_as_it_is() {
    let document = read("docs/errors.md");
    let (peer, store) = document
        .split_once("## The store")
        .expect("a part about the store");
    let tables = CODES.iter().flat_map(|table| table.iter());
    let refusals = REFUSALS
        .iter()
        .map(|refusal| (refusal.code(), "refusal".to_owned(), refusal.to_string()));
    let expected: BTreeSet<Vec<String>> = tables
        .map(|code| {
            (
                code.code,
                format!("{:?}", code.class).to_lowercase(),
                code.text.to_owned(),
            )
        })
        .chain(refusals)
        .map(|(code, class, text)| vec![code.to_owned(), class, text])
        .collect();
    same(&rows(peer, 3), &expected);

    let errors = store_errors();
    assert!(errors.iter().all(is_listed));
    let backups = backup_errors();
    assert!(backups.iter().all(is_listed_of_backups));
    let codes = errors.iter().map(StoreError::code);
    let codes = codes.chain(backups.iter().map(BackupError::code));
    let expected: BTreeSet<Vec<String>> = codes.map(|code| vec![code.to_owned()]).collect();
    same(&rows(store, 1), &expected);
}

/// `SNAPSHOTS=overwrite cargo test --test docs` writes the table.
#[test]
fn every_header_is_listed_in_each_dialect() {
    let name = "docs/protocol.md";
    let document = read(name);
    let (begin, end) = ("<!-- headers -->\n", "<!-- end -->\n");
    let (before, rest) = document.split_once(begin).expect("the beginning of the table");
    let (table, after) = rest.split_once(end).expect("the end of the table");
    let names = Dialect::ALL.map(Dialect::name).join(" | ");
    let mut expected = format!("| frame | header | {names} |\n| --- | --- | --- | --- | --- | --- |\n");
    for row in dialect_table() {
        expected += &format!("| {} |\n", row.join(" | "));
    }
    if std::env::var("SNAPSHOTS").is_ok_and(|value| value == "overwrite") {
        let whole = [before, begin, &expected, end, after].concat();
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), whole).expect("it is written");
        return;
    }
    assert_eq!(
        table, expected,
        "SNAPSHOTS=overwrite cargo test --test docs writes it"
    );
}

#[test]
fn every_dependency_is_explained() {
    let manifest = read("Cargo.toml");
    let document = read("docs/dependencies.md");
    let (binary, tests) = document.split_once("## For tests").expect("two tables");
    let tables = [("[dependencies]\n", binary), ("[dev-dependencies]\n", tests)];
    for (section, part) in tables {
        let (_, rest) = manifest.split_once(section).expect("the section is there");
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        let expected: BTreeSet<&str> = lines
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, _)| name)
            .collect();
        let rows = part
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let listed: BTreeSet<&str> = rows
            .filter(|cell| !matches!(*cell, "crate" | "---" | "advisory") && !cell.starts_with("RUSTSEC"))
            .flat_map(|cell| cell.split(", "))
            .map(|name| name.split(' ').next().unwrap_or_default())
            .collect();
        same(&listed, &expected);
    }
}

/// `SNAPSHOTS=overwrite cargo test --test docs` writes it.
#[test]
fn the_reference_of_the_command_line_is_that_of_the_program() {
    let made = steadfast::cli::reference();
    if std::env::var("SNAPSHOTS").is_ok_and(|action| action == "overwrite") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
        std::fs::write(path, &made).expect("docs/cli.md can be written");
    }
    assert!(
        read("docs/cli.md") == made,
        "docs/cli.md is not what the program says; SNAPSHOTS=overwrite writes it"
    );
}

#[test]
fn every_metric_is_listed_as_it_is() {
    let name = "docs/metrics.md";
    let document = read(name);
    let (begin, end) = ("<!-- metrics -->\n", "<!-- end -->\n");
    let (before, rest) = document.split_once(begin).expect("the beginning of the table");
    let (table, after) = rest.split_once(end).expect("the end of the table");
    let mut expected = "| name | kind | label | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for metric in METRICS {
        let label = metric
            .label()
            .map(|label| format!("`{label}`"))
            .unwrap_or_default();
        let (name, kind, help) = (metric.name(), metric.kind(), metric.help);
        expected += &format!("| `{name}` | {kind} | {label} | {help} |\n");
    }
    if std::env::var("SNAPSHOTS").is_ok_and(|value| value == "overwrite") {
        let whole = [before, begin, &expected, end, after].concat();
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), whole).expect("it is written");
        return;
    }
    assert_eq!(
        table, expected,
        "SNAPSHOTS=overwrite cargo test --test docs writes it"
    );
    let names: BTreeSet<String> = METRICS.iter().map(steadfast::runtime::Metric::name).collect();
    assert_eq!(names.len(), METRICS.len(), "every name stands once");
}

#[test]
fn every_code_of_the_api_is_listed() {
    let document = read("docs/api.md");
    let (_, part) = document.split_once("## Errors").expect("a part about errors");
    let refusals = [
        Refusal::QueueUnknown,
        Refusal::QueueInUse,
        Refusal::QueuePrivate,
        Refusal::SameQueue,
        Refusal::SessionUnknown,
        Refusal::DiskFull,
        Refusal::MemoryFull,
        Refusal::ShuttingDown,
    ];
    let expected: BTreeSet<Vec<String>> = ApiCode::ALL
        .iter()
        .map(|code| (code.code(), code.status()))
        .chain(refusals.map(|refusal| (refusal.code(), refusal_status(refusal))))
        .map(|(code, status)| vec![code.to_owned(), status.to_string()])
        .collect();
    same(&rows(part, 2), &expected);
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![
        "README.md".to_owned(),
        "CONTRIBUTING.md".to_owned(),
        "SECURITY.md".to_owned(),
    ];
    for entry in std::fs::read_dir(root.join("docs")).expect("docs") {
        let name = entry.expect("an entry of docs").file_name();
        documents.push(format!("docs/{}", name.to_str().expect("a name in ASCII")));
    }
    for document in documents.iter().filter(|name| name.ends_with(".md")) {
        let text = read(document);
        let folder = root.join(document);
        let folder = folder.parent().expect("a document lies in a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") {
                assert!(folder.join(link).exists(), "{document} links to {link}");
            }
        }
    }
}
