//! Obligations that no single transcript shows. Each is named after its number.

use steadfast::session::Phase;

use crate::world::World;

fn connect(world: &mut World, client: u8, version: &str, beat: &str) {
    world.open(client);
    let frame = format!("CONNECT\naccept-version:{version}\nhost:localhost\nheart-beat:{beat}\n\n\0");
    world.send(client, frame.as_bytes(), frame.len());
    let frame = world
        .client(client)
        .take_frame()
        .unwrap()
        .expect("CONNECTED comes");
    assert_eq!(frame.command, b"CONNECTED");
}

/// 34: clients that connect and disconnect quickly leave nothing behind, however they end.
#[test]
fn obligation_034_quick_clients_leave_nothing() {
    let mut world = World::new();
    connect(&mut world, 1, "1.2", "0,0");
    let message = "SEND\ndestination:/queue/a\n\nx\0";
    world.send(1, message.as_bytes(), message.len());
    for round in 0..300 {
        connect(&mut world, 2, "1.1", "0,0");
        let work = "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n\0\
                    SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0\
                    BEGIN\ntransaction:t\n\n\0\
                    SEND\ntransaction:t\ndestination:/queue/b\n\nx\0";
        world.send(2, work.as_bytes(), work.len());
        let delivered = world
            .client(2)
            .take_frame()
            .unwrap()
            .expect("the message comes each time");
        assert_eq!(delivered.command, b"MESSAGE");
        match round % 3 {
            0 => world.hang_up(2),
            1 => {
                world.send(2, b"DISCONNECT\n\n\0", 4);
                assert_eq!(world.client(2).session.phase(), Phase::Ended);
                world.hang_up(2);
            }
            _ => {
                world.send(2, b"NONSENSE\n\n\0", 4);
                assert_eq!(world.client(2).take_frame().unwrap().unwrap().command, b"ERROR");
                assert_eq!(world.client(2).session.phase(), Phase::Ended);
                world.hang_up(2);
            }
        }
        let view = world.broker().queues().next().expect("the queue has its message");
        assert_eq!(
            (view.depth, view.leased_count, view.subscription_count),
            (1, 0, 0)
        );
        assert_eq!(
            world.broker().queues().count(),
            1,
            "the other queue never came to be"
        );
        let topic = steadfast::base::DestinationKind::Topic;
        assert_eq!(world.broker().subscription_count(topic, "a"), 0);
    }
}

/// 56: with an interval of n ms agreed, no n ms pass without an octet from us, beats and frames mixed.
#[test]
fn obligation_056_something_is_written_every_interval() {
    for version in ["1.1", "1.2"] {
        for interval in [1_000_u64, 1_001, 1_999, 2_500, 60_000] {
            let mut world = World::new();
            connect(&mut world, 1, version, &format!("0,{interval}"));
            let mut last = world.now.mono_ms;
            for step in 0..2_000_u64 {
                world.advance(1 + step * 7 % 97 * (interval / 1_000));
                if step % 50 == 0 {
                    let frame =
                        format!("BEGIN\ntransaction:{step}\nreceipt:1\n\n\0ABORT\ntransaction:{step}\n\n\0");
                    world.send(1, frame.as_bytes(), frame.len());
                }
                let now = world.now.mono_ms;
                let client = world.client(1);
                let mut octets = 0;
                while !client.output.is_empty() {
                    octets += client.take_beats();
                    octets += usize::from(client.take_frame().unwrap().is_some());
                }
                if octets > 0 {
                    last = now;
                }
                // The clock is read after each step, so a beat is seen up to one step late.
                let step_ms = 97 * interval / 1_000 + 97;
                assert!(
                    now - last <= interval + step_ms,
                    "{} ms of silence at an interval of {interval} ms",
                    now - last
                );
            }
        }
    }
}

/// 56, exactly: the deadline the session names for its beat is never later than the interval.
#[test]
fn obligation_056_the_deadline_is_in_time() {
    for interval in [1_000_u64, 1_234, 5_000] {
        let mut world = World::new();
        connect(&mut world, 1, "1.2", &format!("0,{interval}"));
        for _ in 0..50 {
            let at = world.client(1).session.poll_timeout().expect("a beat is due");
            assert!(
                at <= world.now.mono_ms + interval,
                "a beat is due within {interval} ms"
            );
            let wait = at - world.now.mono_ms;
            world.advance(wait);
            assert!(world.client(1).take_beats() > 0, "at its time the beat is there");
        }
    }
}
