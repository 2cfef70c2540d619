//! `steadfast bench` as a program: against the real broker, against its own faulty sink, and asked wrongly.

use snapbox::str;

use super::check::World;
use super::rig::Settings;

/// One run that must end with this code; gives what it printed on standard output.
fn run(world: &World, args: &[&str], code: i32) -> String {
    let output = world.command(&[&["bench"], args].concat()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_mode_finds_the_real_broker_valid() {
    let world = World::new();
    let broker = Settings::in_dir(world.folder()).start();
    let addr = broker.addr().to_string();
    let pid = broker.pid();
    for mode in [
        "publish --count 300",
        "publish --rate 2000 --duration-ms 200 --plot plot.svg",
        "e2e --count 300",
        "e2e --rate 2000 --duration-ms 200",
        "drain --count 300",
        "ping-pong --count 30 --dir .",
        "transactions --count 300 --per-transaction 20",
        "transactions --acks --count 300 --per-transaction 20 --connections 2",
        "fan-out --count 300 --consumers 3",
        "fan-out --count 300 --consumers 3 --to queue",
        "backlog --count 300 --backlog 300 --connections 2",
    ] {
        let mut args: Vec<&str> = mode.split(' ').collect();
        args.extend(["--addr", &addr, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&run(&world, &args, 0)).unwrap();
        assert_eq!(report["valid"], true, "{mode}: {report}");
        if report["mode"] != "backlog" {
            assert_eq!(report["broker"]["pid"], pid, "{mode}: {report}");
            assert!(
                report["generator"]["ratio"].as_f64().unwrap() > 0.0,
                "{mode}: {report}"
            );
        }
    }
    let picture = std::fs::read_to_string(world.folder().join("plot.svg")).unwrap();
    assert!(picture.contains("</svg>") && picture.contains("<path d=\"M"));

    let compared = run(
        &world,
        &[
            "compare",
            &addr,
            &addr,
            "--rounds",
            "2",
            "--duration-ms",
            "50",
            "--count",
            "300",
            "--json",
        ],
        0,
    );
    let compared: serde_json::Value = serde_json::from_str(&compared).unwrap();
    assert_eq!(
        (&compared["valid"], compared["rows"].as_array().unwrap().len()),
        (&true.into(), 4)
    );
}

#[test]
fn a_faulty_sink_is_told_in_words_and_by_the_exit_code() {
    let world = World::new();
    let load = "e2e --sink --count 400 --connections 1 --consumers 1 --fault double --fault-every 100";
    let text = run(&world, &load.split(' ').collect::<Vec<_>>(), 1);
    assert!(text.contains("verdict    INVALID: 4 doubled"), "{text}");
}

#[test]
fn wrong_usage() {
    let world = World::new();
    world.check(
        &["bench", "fan-out", "--sink", "--queues", "2"],
        2,
        str![[r#"
error: there is one topic: --queues is for --to queue

"#]],
    );
    world.check(
        &["bench", "publish", "--addr", "127.0.0.1:1"],
        1,
        str![[r#"
error: cannot connect to 127.0.0.1:1: Connection refused (os error 111); start a broker there (`steadfast serve`), or name another with --addr

"#]],
    );
}

#[test]
fn help() {
    let world = World::new();
    world.check(
        &["bench", "--help"],
        0,
        str![[r#"
Measure a broker, any that speaks STOMP 1.2

Usage: steadfast bench <COMMAND>

Commands:
  publish       Send with a receipt for each message; then look at every message, unmeasured
  fill          Send and leave the messages stored, for `drain --stored`
  drain         Fill, unmeasured, then receive and acknowledge everything
  e2e           Producers and consumers at once; delivery latency
  ping-pong     One message at a time: SEND, wait for its RECEIPT
  transactions  Several SENDs, or SENDs and ACKs, in each transaction; the RECEIPT of COMMIT
  fan-out       Many receivers of one topic, or of one queue
  backlog       Publish and drain with few messages stored and with many, as a ratio
  first         Wait for the broker to come up and time the first delivery
  idle          Open connections that do nothing; memory of the broker for each
  compare       The standard set against two brokers in turns, as ratios
  disk          The disk alone: append with fdatasync, and the ceiling of group commit
  store         The store alone: the broker's commits without broker and network
  sink          A broker that keeps no promise and answers at once, to measure the load generator
                against
  help          Print this message or the help of the given subcommand(s)

Options:
  -h, --help  Print help

Every message carries a checksum and a sequence. One lost, doubled, reordered or altered makes the
run INVALID.

Examples:
  steadfast bench publish                        send for five seconds to 127.0.0.1:61613
  steadfast bench e2e --rate 20000 --plot e2e.svg
  steadfast bench compare 127.0.0.1:61613 guest:guest@127.0.0.1:61614
  steadfast bench publish --sink                 the load generator alone

Progress is on standard error, the result on standard output. docs/performance.md has the method.
Exit codes: 0 measured and valid, 1 INVALID or a fault, 2 wrong usage.

"#]],
    );
    world.check(
        &["bench", "transactions", "--help"],
        0,
        str![[r#"
Several SENDs, or SENDs and ACKs, in each transaction; the RECEIPT of COMMIT

Usage: steadfast bench transactions [OPTIONS]

Options:
      --addr <HOST:PORT>
          Address of the broker
          
          [default: 127.0.0.1:61613]

      --login <NAME>
          Login name

      --passcode <PASSCODE>
          Passcode; better in the variable STEADFAST_PASSCODE, since others can see arguments

      --passcode-file <FILE>
          ... or in the first line of this file, such as a JWT, which needs no login name

      --host <HOST>
          Virtual host, sent as `host` [default: the host of the address]

      --tls
          Speak TLS, and believe the authorities of the system

      --ca <FILE>
          ... those in this PEM file instead

      --cert <FILE>
          Show this certificate (PEM) to a broker that asks for one

      --key <FILE>
          ... with this private key (PEM)

      --pid <PID>
          Process of the broker [default: the one that listens at the address, on this machine]

      --json
          Print one JSON object

      --sink
          Measure against a sink in this process instead of a broker

      --fault <KIND>
          Let that sink break something, to see it found

          Possible values:
          - lose:   Deliver nothing for it
          - double: Deliver it twice
          - swap:   Deliver it after the next one of its sender to the same subscription
          - alter:  Change one bit of its body
          - forget: Send no RECEIPT for it, or for its transaction
          - repeat: Send that RECEIPT twice

      --fault-every <N>
          ... at every n-th message
          
          [default: 1000]

      --connections <CONNECTIONS>
          Connections that send [default: 8; e2e 4; ping-pong and fan-out 1]

      --consumers <CONSUMERS>
          Connections that receive [default: as many as queues, at most 8; fan-out 8]

      --queues <QUEUES>
          Queues [default: as many as connections; drain and fan-out 1]

      --prefix <PREFIX>
          Destinations are this and a number
          
          [default: /queue/bench-]

      --size <SIZE>
          Bytes of each body
          
          [default: 1024]

      --window <WINDOW>
          Frames (or transactions) without receipt per connection at most [default: 256;
          transactions 4; ping-pong 1]

      --count <COUNT>
          Messages in all [default: drain and fill 200000, ping-pong 2000]

      --duration-ms <MS>
          How long to send [default: where --count has none, 5000]

      --ack-mode <ACK_MODE>
          How consumers acknowledge

          Possible values:
          - auto:              Not at all
          - client:            Cumulatively, one ACK for what one read brought
          - client-individual: One ACK for each message
          
          [default: client-individual]

      --prefetch <PREFETCH>
          Ask for this `prefetch-count`

      --dedup
          Give each message a `dedup-id` of its own, of 36 bytes

      --header <NAME:VALUE>
          A further header of every SEND

      --subscribe-header <NAME:VALUE>
          A further header of every SUBSCRIBE

      --patience-ms <MS>
          How long nothing may come though something is due, before the rest counts as lost
          
          [default: 10000]

      --no-generator-check
          Do not look how fast the load generator alone is

      --plot <FILE.svg>
          Draw rate and latency over time

      --rate <N>
          Messages in a second, of all connections together (open loop): each has its time, and its
          latency counts from then even if it could not be sent then [default: as fast as the window
          lets]

      --per-transaction <N>
          Messages in each transaction
          
          [default: 100]

      --acks
          Fill, unmeasured, then move everything to other queues: each transaction receives N
          messages, sends them on and acknowledges them

  -h, --help
          Print help (see a summary with '-h')

Latency counts from BEGIN, or with --rate from when the transaction was due, to the RECEIPT of
COMMIT. --window counts transactions.

Examples:
  steadfast bench transactions --per-transaction 100
  steadfast bench transactions --per-transaction 10 --rate 5000 --plot transactions.svg
  steadfast bench transactions --acks --per-transaction 50 --count 50000

"#]],
    );
}
