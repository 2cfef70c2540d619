use clap::{Args, Command, FromArgMatches};

use super::*;

fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
    let command = BenchArgs::augment_args(Command::new("bench"));
    let matches = command.try_get_matches_from(std::iter::once("bench").chain(line.split(' ')))?;
    BenchArgs::from_arg_matches(&matches)
}

#[test]
fn the_arguments_are_consistent() {
    BenchArgs::augment_args(Command::new("bench")).debug_assert();
}

#[test]
fn bad_values_are_refused() {
    for line in [
        "publish --size 27",
        "publish --connections 0",
        "publish --count 0",
        "publish --count 1 --duration 1",
        "publish --header x",
        "publish --fault lose",
        "publish --sink --addr 127.0.0.1:1",
        "publish --duration -1",
        "e2e --max-undelivered 0",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn every_load_mode_runs_and_judges() {
    for (line, valid) in [
        ("publish --sink --count 500 --size 28", true),
        (
            "publish --sink --count 500 --fault lose --fault-every 100 --patience 2",
            false,
        ),
        ("publish --sink --duration 0.05 --connections 2 --queues 3", true),
        (
            "publish --sink --count 500 --fault alter --fault-every 100",
            false,
        ),
        ("fill --sink --count 500", true),
        ("drain --sink --count 500 --prefetch 10 --ack-mode client", true),
        ("drain --sink --count 500 --fault double --fault-every 100", false),
        ("e2e --sink --count 500 --max-undelivered 4 --json", true),
        ("ping-pong --sink --count 20", true),
        ("drain --sink --stored --count 1 --patience 0.2", false),
    ] {
        let args = parse(line).unwrap();
        assert_eq!(run_mode(&args.mode).unwrap(), valid, "{line}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_an_error() {
    let args = parse("publish --addr 127.0.0.1:1").unwrap();
    assert!(matches!(
        run_mode(&args.mode),
        Err(BenchError::Client(ClientError::Connect { .. }))
    ));
}
