//! What `--help` shows at its end, for each mode. A test parses every example.

pub(super) const BENCH: &str = "\
Every message carries a checksum and a sequence. One lost, doubled, reordered or altered makes the run INVALID.

Examples:
  steadfast bench publish                        send for five seconds to 127.0.0.1:61613
  steadfast bench e2e --rate 20000 --plot e2e.svg
  steadfast bench compare 127.0.0.1:61613 guest:guest@127.0.0.1:61614
  steadfast bench publish --sink                 the load generator alone

Progress is on standard error, the result on standard output. docs/performance.md has the method.
Exit codes: 0 measured and valid, 1 INVALID or a fault, 2 wrong usage.";

pub(super) const PUBLISH: &str = "\
Rate and latency are those of the RECEIPTs. All messages are then received and looked at.

Examples:
  steadfast bench publish --size 100 --connections 8 --window 256 --duration-ms 5000
  steadfast bench publish --rate 50000 --plot publish.svg
  steadfast bench publish --addr 127.0.0.1:61614 --login guest --passcode guest --json
  steadfast bench publish --sink --fault lose --fault-every 100";

pub(super) const FILL: &str = "\
Examples:
  steadfast bench fill --count 1000000 --queues 1
  steadfast bench fill --count 10000 --connections 1 --window 1 --prefix /queue/kept-";

pub(super) const DRAIN: &str = "\
The rate counts from SUBSCRIBE to the RECEIPT of DISCONNECT, by when every ACK is settled.

Examples:
  steadfast bench drain --count 200000 --consumers 1 --prefetch 1000
  steadfast bench drain --stored --count 1000000
  steadfast bench drain --ack-mode client --plot drain.svg";

pub(super) const E2E: &str = "\
Delivery latency counts from when a message is made, or with --rate from when it was due, to its MESSAGE.

Examples:
  steadfast bench e2e --connections 4 --consumers 4 --duration-ms 5000
  steadfast bench e2e --max-undelivered 64
  steadfast bench e2e --rate 20000 --duration-ms 10000 --plot e2e.svg";

pub(super) const PING_PONG: &str = "\
Examples:
  steadfast bench ping-pong --count 2000
  steadfast bench ping-pong --dir ./data          beside append and fdatasync on that disk
  steadfast bench ping-pong --rate 100 --duration-ms 10000";

pub(super) const TRANSACTIONS: &str = "\
Latency counts from BEGIN, or with --rate from when the transaction was due, to the RECEIPT of COMMIT. --window \
counts transactions.

Examples:
  steadfast bench transactions --per-transaction 100
  steadfast bench transactions --per-transaction 10 --rate 5000 --plot transactions.svg
  steadfast bench transactions --acks --per-transaction 50 --count 50000";

pub(super) const FAN_OUT: &str = "\
The rate counts deliveries. To a topic each subscriber must get every message once, to a queue one of them.

Examples:
  steadfast bench fan-out --consumers 32
  steadfast bench fan-out --to queue --connections 4 --consumers 32
  steadfast bench fan-out --consumers 8 --rate 1000 --ack-mode auto";

pub(super) const BACKLOG: &str = "\
Measures few, many, many, few and gives the ratio of many to few. The backlog is drained and looked at in the end.

Examples:
  steadfast bench backlog --backlog 1000000 --duration-ms 5000
  steadfast bench backlog --backlog 100000 --size 100 --json";

pub(super) const FIRST: &str = "\
Examples:
  steadfast bench first --since 1700000000000000000 --destination /queue/bench-0";

pub(super) const IDLE: &str = "\
Examples:
  steadfast bench idle --connections 1000";

pub(super) const COMPARE: &str = "\
The standard set is ping-pong, publish, e2e and drain, each with its defaults. The same address twice shows the noise.

Examples:
  steadfast bench compare 127.0.0.1:61613 127.0.0.1:61613
  steadfast bench compare 127.0.0.1:61613 guest:guest@127.0.0.1:61614 --rounds 6 --json";

pub(super) const DISK: &str = "\
Examples:
  steadfast bench disk --dir ./data
  steadfast bench disk --size 100 --duration-ms 500 --json";

pub(super) const STORE: &str = "\
Each line is one commit after another: `publish` only adds, `e2e` also settles what an earlier commit added. The new \
folder that is measured in is opened again and read through, then removed.

Examples:
  steadfast bench store --dir .
  steadfast bench store --per-commit 1,64,512 --size 1024 --duration-ms 2000 --json";

pub(super) const SINK: &str = "\
Examples:
  steadfast bench sink --listen 127.0.0.1:61699
  steadfast bench sink --listen 127.0.0.1:61699 --fault swap --fault-every 100";
