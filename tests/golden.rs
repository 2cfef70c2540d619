//! Golden transcripts of the protocol, and properties where a transcript is not enough: one per obligation of the
//! standard, named after its number. `tests/golden/README.md` describes the language.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "golden/properties.rs"]
mod properties;
#[path = "golden/script.rs"]
mod script;
mod support;
#[path = "golden/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use script::{Expected, Line, Pattern, Scenario, Step};
use steadfast::base::Rules;
use world::World;

/// Every obligation with the versions it says something for.
const OBLIGATIONS: &[(&str, &str)] = &[
    ("1", "1.0 1.1 1.2"),
    ("2", "1.0 1.1 1.2"),
    ("3", "1.0 1.1 1.2"),
    ("4", "1.1 1.2"),
    ("5", "1.0 1.1 1.2"),
    ("6", "1.0 1.1 1.2"),
    ("7", "1.1 1.2"),
    ("8", "1.0 1.1 1.2"),
    ("9", "1.0 1.1 1.2"),
    ("10", "1.0 1.1 1.2"),
    ("11", "1.1 1.2"),
    ("12", "1.1 1.2"),
    ("13", "1.1 1.2"),
    ("14", "1.1 1.2"),
    ("15", "1.0 1.1 1.2"),
    ("16", "1.1 1.2"),
    ("17", "1.1 1.2"),
    ("18", "1.0 1.1 1.2"),
    ("19", "1.0 1.1 1.2"),
    ("20", "1.0 1.1 1.2"),
    ("21", "1.0 1.1 1.2"),
    ("22", "1.0 1.1 1.2"),
    ("23", "1.0 1.1 1.2"),
    ("24", "1.1 1.2"),
    ("25", "1.1 1.2"),
    ("26", "1.1 1.2"),
    ("27", "1.1 1.2"),
    ("28", "1.1 1.2"),
    ("29", "1.1 1.2"),
    ("30", "1.1 1.2"),
    ("31", "1.1 1.2"),
    ("32", "1.1 1.2"),
    ("33", "1.1 1.2"),
    ("34", "1.1 1.2"),
    ("35", "1.1 1.2"),
    ("36", "1.0 1.1 1.2"),
    ("37", "1.1 1.2"),
    ("38", "1.1 1.2"),
    ("39", "1.0"),
    ("40", "1.0 1.1 1.2"),
    ("41", "1.1 1.2"),
    ("42", "1.1 1.2"),
    ("43", "1.1 1.2"),
    ("44", "1.1 1.2"),
    ("45", "1.1 1.2"),
    ("46", "1.0 1.1 1.2"),
    ("47", "1.0 1.1 1.2"),
    ("48", "1.1 1.2"),
    ("49", "1.1 1.2"),
    ("50", "1.0 1.1 1.2"),
    ("51", "1.1 1.2"),
    ("52", "1.1 1.2"),
    ("53", "1.1 1.2"),
    ("54", "1.1 1.2"),
    ("55", "1.1 1.2"),
    ("56", "1.1 1.2"),
    ("57", "1.1 1.2"),
    ("58", "1.1 1.2"),
    ("59", "1.1 1.2"),
    ("60", "1.1 1.2"),
    ("61", "1.0 1.1 1.2"),
    ("62", "1.0 1.1 1.2"),
    ("63", "1.0 1.1 1.2"),
    ("64", "1.1 1.2"),
    ("65", "1.1 1.2"),
    ("66", "1.1 1.2"),
    ("67", "1.0 1.1 1.2"),
    ("68", "1.0 1.1 1.2"),
    ("69", "1.1 1.2"),
    ("70", "1.0 1.1 1.2"),
    ("71", "1.0 1.1 1.2"),
    ("72", "1.0 1.1 1.2"),
    ("73", "1.1 1.2"),
    ("74", "1.1 1.2"),
    ("75", "1.0 1.1 1.2"),
    ("76", "1.1 1.2"),
    ("77", "1.0 1.1 1.2"),
    ("78", "1.0"),
    ("79", "1.0 1.1 1.2"),
    ("80", "1.0 1.1 1.2"),
    ("81", "1.0 1.1 1.2"),
    ("82", "1.0 1.1 1.2"),
    ("83", "1.0 1.1 1.2"),
    ("84", "1.1 1.2"),
    ("85", "1.1 1.2"),
    ("86", "1.0 1.1 1.2"),
    ("87", "1.0 1.1 1.2"),
    ("88", "1.0 1.1 1.2"),
    ("89", "1.1 1.2"),
    ("90", "1.1 1.2"),
    ("91", "1.0 1.1 1.2"),
    ("92", "1.0 1.1 1.2"),
    ("93", "1.0 1.1 1.2"),
    ("94", "1.2"),
    ("95", "1.2"),
    ("95a", "1.0 1.1 1.2"),
    ("95b", "1.0 1.1 1.2"),
    ("95c", "1.0 1.1 1.2"),
    ("96", "1.0 1.1 1.2"),
    ("97", "1.2"),
    ("98", "1.2"),
    ("99", "1.1 1.2"),
    ("100", "1.0 1.1 1.2"),
    ("101", "1.0 1.1 1.2"),
    ("102", "1.1 1.2"),
    ("103", "1.1 1.2"),
    ("104", "1.0 1.1 1.2"),
];

fn scenarios() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "stomp"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            script::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap_or_else(|e| panic!("{e}"))
        })
        .collect()
}

/// Plays every transcript, in every version it names, with whole reads and with single bytes.
/// `GOLDEN=text` plays only those whose file or title contains the text.
#[test]
fn transcripts() {
    let only = std::env::var("GOLDEN").unwrap_or_default();
    let mut played = 0;
    let mut failures = Vec::new();
    for scenario in scenarios() {
        if !format!("{} {}", scenario.file, scenario.title).contains(&only) {
            continue;
        }
        for version in &scenario.versions {
            for bytewise in [false, true] {
                played += 1;
                let outcome = catch_unwind(AssertUnwindSafe(|| play(&scenario, version, bytewise)))
                    .unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))));
                if let Err(what) = outcome {
                    let reads = if bytewise { "single bytes" } else { "whole reads" };
                    failures.push(format!(
                        "{} == {} ({version}, {reads})\n  {what}",
                        scenario.file, scenario.title
                    ));
                }
            }
        }
    }
    assert!(played > 0, "no transcript matches {only}");
    assert!(
        failures.is_empty(),
        "{} of {played} transcripts failed:\n\n{}\n",
        failures.len(),
        failures.join("\n\n")
    );
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

fn play(scenario: &Scenario, version: &str, bytewise: bool) -> Result<(), String> {
    let mut world = World::new();
    world
        .vars
        .insert("version".to_owned(), version.as_bytes().to_vec());
    let mut lines = scenario
        .lines
        .iter()
        .filter(|line| line.only.is_empty() || line.only.contains(version))
        .peekable();
    while let Some(line) = lines.next() {
        let at = |what: String| format!("line {}: {what}", line.number);
        let expectation = matches!(
            line.step,
            Step::FrameLine(..)
                | Step::Frame(..)
                | Step::Beat(_)
                | Step::Closed(_)
                | Step::ClosedAnyhow(_)
                | Step::FailedAtLast(_)
                | Step::Depth(..)
                | Step::Counter(..)
                | Step::Open(_)
                | Step::Gap
        );
        if !expectation {
            world.check_quiet().map_err(at)?;
        }
        match &line.step {
            Step::Send(client, first) => {
                let mut bytes = first.fill(&world.vars).map_err(at)?;
                while let Some(Line {
                    step: Step::Send(_, more),
                    ..
                }) = lines.next_if(|next| matches!(&next.step, Step::Send(same, _) if same == client))
                {
                    bytes.extend(more.fill(&world.vars).map_err(at)?);
                }
                let piece = if bytewise {
                    1 + bytes.len() / 2_000
                } else {
                    bytes.len()
                };
                world.send(*client, &bytes, piece);
            }
            Step::FrameLine(client, first, ended) => {
                let mut frame = vec![first.clone()];
                let mut ended = *ended;
                while !ended {
                    match lines.next().map(|next| &next.step) {
                        Some(Step::FrameLine(same, pattern, last)) if same == client => {
                            frame.push(pattern.clone());
                            ended = *last;
                        }
                        _ => return Err(at("an expected frame goes up to ^@".to_owned())),
                    }
                }
                let expected = Expected::from_lines(&frame).map_err(at)?;
                world.expect_frame(*client, &expected).map_err(at)?;
            }
            step => perform(&mut world, step, version).map_err(at)?,
        }
    }
    world.check_quiet()
}

fn perform(world: &mut World, step: &Step, version: &str) -> Result<(), String> {
    let same = |what: &str, want: u64, got: u64| {
        if want == got {
            Ok(())
        } else {
            Err(format!("{what} is {got}, expected {want}"))
        }
    };
    match step {
        Step::Frame(client, expected) => world.expect_frame(*client, expected)?,
        Step::Beat(client) => {
            if world.client(*client).take_beats() == 0 {
                return Err("expected a heart-beat".to_owned());
            }
        }
        Step::Closed(client) => closed(world, *client)?,
        Step::ClosedAnyhow(client) => {
            if let Some(frame) = world.client(*client).take_frame()?
                && frame.command != b"ERROR"
            {
                return Err(format!("expected an ERROR or nothing, got {frame:?}"));
            }
            closed(world, *client)?;
        }
        Step::FailedAtLast(client) => {
            let mut last = Vec::new();
            while let Some(frame) = world.client(*client).take_frame()? {
                last = frame.command;
            }
            if last != b"ERROR" {
                return Err("expected an ERROR at last".to_owned());
            }
            closed(world, *client)?;
        }
        Step::Open(client) => {
            let phase = world.client(*client).session.phase();
            if phase == steadfast::session::Phase::Ended {
                return Err("the session has ended".to_owned());
            }
        }
        Step::Connect {
            client,
            version: own,
            headers,
        } => connect(world, *client, own.as_deref().unwrap_or(version), headers)?,
        Step::Hangup(client) => world.hang_up(*client),
        Step::Advance(ms) => world.advance(*ms),
        Step::Hold(held) => world.hold(*held),
        Step::Stall(client, stalled) => world.stall(*client, *stalled),
        Step::Room(room) => world.room(*room),
        Step::Restart => world.restart(),
        Step::Crash => world.crash(),
        Step::Dialect(name) => {
            world.dialect = steadfast::base::Dialect::named(name).ok_or("no such dialect")?
        }
        Step::Judged => world.judged = true,
        Step::Login(client, said) => world.login(*client, said)?,
        Step::Accept(client, name, for_ms) => world.accept(*client, name, *for_ms),
        Step::Deny(client) => world.deny(*client),
        Step::Revoke(client) => world.revoke(*client),
        Step::Limit(name, value) => world.limit(name, *value)?,
        Step::Policy(pattern, settings) => world.policy(pattern, settings)?,
        Step::NoRules => world.set_rules(Rules::default()),
        Step::Rule(allows, [actions, who, on]) => world.rule(*allows, actions, who, on)?,
        Step::User(client, names) => world.user(*client, names),
        Step::Depth(queue, want) => same("the depth", *want, world.depth(queue))?,
        Step::Counter(name, want) => same(name, *want, world.counter(name)?)?,
        Step::Send(..) | Step::FrameLine(..) => unreachable!("gathered by the caller"),
        Step::Gap => {}
    }
    Ok(())
}

fn closed(world: &mut World, client: u8) -> Result<(), String> {
    let target = world.clients.get_mut(&client).ok_or("no such client")?;
    if !target.output.is_empty() {
        return Err(format!("expected the end, got {}", world::show(&target.output)));
    }
    if target.session.phase() != steadfast::session::Phase::Ended {
        return Err(format!("the session is {:?}, not ended", target.session.phase()));
    }
    target.end_seen = true;
    Ok(())
}

fn connect(world: &mut World, client: u8, version: &str, headers: &[(String, String)]) -> Result<(), String> {
    let mut text = "CONNECT\n".to_owned();
    if version != "1.0" {
        text.push_str(&format!("accept-version:{version}\nhost:localhost\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}:{value}\n"));
    }
    text.push_str("\n\0");
    world.open(client);
    world.send(client, text.as_bytes(), text.len());
    let expected = Expected {
        command: Pattern(vec![script::Piece::Bytes(b"CONNECTED".to_vec())]),
        headers: if version == "1.0" {
            Vec::new()
        } else {
            vec![Pattern(vec![script::Piece::Bytes(
                format!("version:{version}").into_bytes(),
            )])]
        },
        ..Expected::default()
    };
    world.expect_frame(client, &expected)
}

/// Every obligation has a transcript or a property, for each version it speaks of.
#[test]
fn every_obligation_is_shown() {
    let mut shown: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for scenario in scenarios() {
        let number = scenario.file.split('-').next().unwrap().trim_start_matches('0');
        shown
            .entry(number.to_owned())
            .or_default()
            .extend(scenario.versions.iter());
    }
    for line in include_str!("golden/properties.rs").lines() {
        if let Some((number, _)) = line
            .trim()
            .strip_prefix("fn obligation_")
            .and_then(|rest| rest.split_once('_'))
        {
            let number = number.trim_start_matches('0').to_owned();
            shown.entry(number).or_default().extend(script::VERSIONS);
        }
    }
    let mut missing = Vec::new();
    for (number, versions) in OBLIGATIONS {
        for version in versions.split(' ') {
            if !shown.get(*number).is_some_and(|known| known.contains(version)) {
                missing.push(format!("{number} in {version}"));
            }
        }
    }
    assert!(missing.is_empty(), "obligations without a witness: {missing:?}");
    let known: BTreeSet<&str> = OBLIGATIONS.iter().map(|(number, _)| *number).collect();
    for number in shown.keys() {
        assert!(
            known.contains(number.as_str()) || number == "p",
            "{number} is no obligation"
        );
    }
}

/// The oracle can fail: a wrong frame, a missing one and one too many are each noticed.
#[test]
fn a_wrong_transcript_fails() {
    let failing = [
        (
            "a wrong header",
            "connect\nC> BEGIN transaction:t receipt:1\nS> RECEIPT receipt-id:2",
        ),
        (
            "a missing frame",
            "connect\nC> BEGIN transaction:t\nS> RECEIPT receipt-id:1",
        ),
        ("one too many", "connect\nC> BEGIN transaction:t receipt:1"),
        ("a wrong end", "connect\nS: close"),
        ("an end not expected", "connect\nC> NONSENSE\nS> ERROR"),
    ];
    for (what, text) in failing {
        let scenario = &script::parse(what, &format!("== {what}\n{text}\n")).unwrap()[0];
        assert!(play(scenario, "1.2", false).is_err(), "{what} was not noticed");
    }
}
