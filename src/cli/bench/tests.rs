use std::time::Duration;

use clap::{Args, Command, FromArgMatches};

use super::sink::{Fault, FaultPlan, SinkThread};
use super::verify::Faults;
use super::*;

fn command() -> Command {
    BenchArgs::augment_args(Command::new("bench"))
}

fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
    let matches = command().try_get_matches_from(std::iter::once("bench").chain(line.split(' ')))?;
    BenchArgs::from_arg_matches(&matches)
}

#[test]
fn the_arguments_are_consistent() {
    command().debug_assert();
}

/// Each mode has examples, and each of them is taken as it stands.
#[test]
fn every_example_parses() {
    let command = command();
    for mode in command.get_subcommands() {
        let help = mode.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) = help.split_once("Examples:").unwrap_or_default();
        let begins = format!("  steadfast bench {}", mode.get_name());
        assert!(examples.lines().any(|line| line.starts_with(&begins)), "{mode}");
    }
    let helps = command.get_subcommands().chain([&command]);
    for help in helps.filter_map(|command| command.get_after_help().map(ToString::to_string)) {
        for line in help
            .lines()
            .filter_map(|line| line.strip_prefix("  steadfast bench "))
        {
            let example = line.split("   ").next().unwrap_or_default().trim();
            assert!(parse(example).is_ok(), "{example}");
        }
    }
}

#[test]
fn bad_values_are_refused() {
    for line in [
        "publish --size 27",
        "publish --connections 0",
        "publish --count 0",
        "publish --count 1 --duration-ms 1",
        "publish --duration-ms 0",
        "publish --duration-ms -1",
        "publish --rate 0",
        "publish --rate inf",
        "publish --header x",
        "publish --fault lose",
        "publish --sink --addr 127.0.0.1:1",
        "e2e --max-undelivered 0",
        "e2e --max-undelivered 1 --rate 1",
        "transactions --per-transaction 0",
        "transactions --acks --rate 1",
        "transactions --acks --duration-ms 1",
        "fan-out --to exchange",
        "drain --rate 1",
        "compare 127.0.0.1:1",
        "store --per-commit 4097",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    for line in [
        "transactions --sink --acks --connections 2 --queues 1",
        "fan-out --sink --queues 2",
    ] {
        let refused = run_mode(&parse(line).unwrap().mode);
        assert!(matches!(refused, Err(BenchError::Usage(_))), "{line}");
    }
}

/// Every mode that delivers, small, against its own sink.
const LOADS: [&str; 10] = [
    "publish --sink --count 500 --size 28",
    "drain --sink --count 500 --prefetch 10 --ack-mode client",
    "e2e --sink --count 500 --connections 1 --consumers 1",
    "e2e --sink --count 500 --connections 1 --consumers 1 --rate 20000",
    "ping-pong --sink --count 500",
    "transactions --sink --count 500 --per-transaction 7 --connections 2",
    "transactions --sink --acks --count 500 --per-transaction 7 --connections 2",
    "fan-out --sink --count 500 --consumers 3",
    "fan-out --sink --count 500 --consumers 3 --to queue",
    "backlog --sink --count 500 --backlog 700 --connections 2",
];

#[test]
fn every_mode_runs_and_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    for load in LOADS {
        assert!(run_mode(&parse(load).unwrap().mode).unwrap(), "{load}");
        if !load.starts_with("backlog") {
            let file = dir.path().join("plot.svg");
            let plotted = format!("{load} --json --plot {}", file.display());
            assert!(run_mode(&parse(&plotted).unwrap().mode).unwrap(), "{load}");
            assert!(
                std::fs::read_to_string(&file).unwrap().ends_with("</svg>\n"),
                "{load}"
            );
            std::fs::remove_file(&file).unwrap();
        }
    }
    for line in [
        "publish --sink --duration-ms 50 --connections 2 --queues 3",
        "publish --sink --duration-ms 50 --rate 1000",
        "fill --sink --count 500",
        "e2e --sink --count 500 --max-undelivered 4 --json",
    ] {
        assert!(run_mode(&parse(line).unwrap().mode).unwrap(), "{line}");
    }
    let line = "drain --sink --stored --count 1 --patience-ms 200";
    assert!(!run_mode(&parse(line).unwrap().mode).unwrap());
}

/// Runs a load against a sink with a fault at every 50th message, and gives what was found.
fn faults_of(load: &str, fault: Fault) -> Faults {
    let name = clap::ValueEnum::to_possible_value(&fault).unwrap();
    // Where something is missing, this is how long the test waits for it.
    let patience_ms = if matches!(fault, Fault::Lose | Fault::Forget) {
        400
    } else {
        10_000
    };
    let line = format!(
        "{load} --fault {} --fault-every 50 --patience-ms {patience_ms}",
        name.get_name()
    );
    let args = parse(&line).unwrap();
    let found = |load: LoadArgs, make: &dyn Fn(&LoadArgs) -> Result<Report, BenchError>| {
        let (load, _sink) = load.with_sink().unwrap();
        make(&load).unwrap().faults
    };
    match &args.mode {
        Mode::Publish(args) => found(args.load(), &loads::publish),
        Mode::Drain(args) => found(args.plotted.load(), &|load| loads::drain(load, false)),
        Mode::E2e(args) => found(args.paced.load(), &|load| loads::e2e(load, None)),
        Mode::PingPong(args) => found(args.paced.load(), &|load| loads::ping_pong(load, None)),
        Mode::Transactions(args) => found(args.paced.load(), &|load| {
            transactions::run(load, args.per_transaction, args.acks)
        }),
        Mode::FanOut(args) => found(args.paced.load(), &|load| fan_out::run(load, args.to, None)),
        Mode::Backlog(args) => {
            let (load, _sink) = args.load.clone().with_sink().unwrap();
            backlog::run(&load, args.backlog).unwrap().faults
        }
        mode => panic!("{mode:?} delivers nothing"),
    }
}

fn check_found(load: &str, fault: Fault, faults: Faults) {
    let found = match fault {
        Fault::Lose => faults.lost,
        Fault::Double => faults.doubled,
        Fault::Swap => faults.reordered,
        Fault::Alter => faults.altered,
        Fault::Forget => faults.unconfirmed,
        Fault::Repeat => faults.stray_receipts,
    };
    assert!(found > 0, "{load}: {fault:?} gave {faults:?}");
    // A fault is told as what it is: a message that came twice, late or altered is not also called foreign.
    assert_eq!(faults.foreign, 0, "{load}: {fault:?} gave {faults:?}");
}

#[test]
fn every_fault_of_a_delivery_is_found_in_every_mode() {
    for load in LOADS {
        for fault in [Fault::Double, Fault::Swap, Fault::Alter, Fault::Lose] {
            check_found(load, fault, faults_of(load, fault));
        }
    }
}

#[test]
fn every_fault_of_a_receipt_is_found_in_every_mode() {
    for load in LOADS {
        for fault in [Fault::Repeat, Fault::Forget] {
            check_found(load, fault, faults_of(load, fault));
        }
    }
}

#[test]
fn a_fault_of_one_of_two_brokers_is_found() {
    let [sound, other] = [(); 2].map(|()| SinkThread::start(None).unwrap());
    let faulty = SinkThread::start(Some(FaultPlan {
        fault: Fault::Double,
        every: 50,
    }))
    .unwrap();
    let compare = |b: &SinkThread| {
        let line = format!(
            "compare {} login:pass:code@{} --host / --rounds 2 --duration-ms 20 --count 500 --json",
            sound.addr, b.addr
        );
        run_mode(&parse(&line).unwrap().mode).unwrap()
    };
    assert!(compare(&other));
    assert!(!compare(&faulty));
}

#[test]
fn a_target_is_named_with_its_account() {
    let target = args::BrokerArgs::named("me:p@ss:word@127.0.0.1:61613").target();
    assert_eq!(
        (
            target.addr.as_str(),
            target.login.as_deref(),
            target.passcode.as_ref().map(|passcode| passcode.reveal())
        ),
        ("127.0.0.1:61613", Some("me"), Some(&b"p@ss:word"[..]))
    );
    let target = args::BrokerArgs::named("127.0.0.1:61613").target();
    assert_eq!((target.login, target.passcode), (None, None));
}

/// A rate for a time is a number of messages, and the look at the generator alone is short and as fast as it goes.
#[test]
fn a_rate_for_a_time_is_a_number() {
    let load = |line: &str| match parse(line).unwrap().mode {
        Mode::Publish(args) => args.load(),
        mode => panic!("{mode:?}"),
    };
    let paced = load("publish --rate 2000 --duration-ms 1500");
    assert!(matches!(paced.stop(args::SENDING), engine::Stop::Count(3000)));
    let brief = paced.brief("127.0.0.1:1");
    assert_eq!(brief.rate, None);
    assert!(matches!(brief.stop(args::SENDING), engine::Stop::After(time) if time < Duration::from_secs(1)));
}

#[test]
fn a_broker_that_is_not_there_is_an_error_with_a_remedy() {
    let args = parse("publish --addr 127.0.0.1:1").unwrap();
    let error = run_mode(&args.mode).unwrap_err();
    assert!(matches!(error, BenchError::Client(ClientError::Connect { .. })));
    assert!(error.line().contains("--addr"));
}
