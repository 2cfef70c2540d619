//! Hand-made histories: each violation is found, and its near neighbour that is no violation is not.

use std::collections::BTreeSet;

use super::super::record::{Event, Lease, Mode, Time, What};
use super::{Kind, Rules, check};

const A: &str = "/queue/a";
const B: &str = "/queue/b";
const DEAD: &str = "/queue/DLQ.a";

/// A history in the making. Connection numbers are chosen by the test; a subscription's number is 10 x its connection.
#[derive(Default)]
struct Book {
    events: Vec<Event>,
    frames: [u64; 10],
}

impl Book {
    fn add(&mut self, event: Event) -> Time {
        self.events.push(event);
        self.events.len() - 1
    }

    fn frame(&mut self, conn: u32, receipt: bool, what: What) -> u64 {
        self.frames[conn as usize] += 1;
        let frame = self.frames[conn as usize];
        self.add(Event::Sent {
            conn,
            frame,
            receipt,
            what,
        });
        frame
    }

    /// A frame and its receipt.
    fn sure(&mut self, conn: u32, what: What) {
        let frame = self.frame(conn, true, what);
        self.add(Event::Receipt { conn, frame });
    }

    /// A frame without receipt.
    fn perhaps(&mut self, conn: u32, what: What) {
        self.frame(conn, false, what);
    }

    fn subscribe(&mut self, conn: u32, queue: &'static str, mode: Mode) {
        let sub = conn * 10;
        let lease = None;
        self.perhaps(
            conn,
            What::Subscribe {
                sub,
                queue,
                mode,
                lease,
            },
        );
    }

    /// With a lease of 100 ms, from 0 on.
    fn lease(&mut self, conn: u32, queue: &'static str) {
        let lease = Lease {
            span_ms: 100,
            from_ms: 0,
        };
        let what = What::Subscribe {
            sub: conn * 10,
            queue,
            mode: Mode::Individual,
            lease: Some(lease),
        };
        self.perhaps(conn, what);
    }

    fn came_at(&mut self, conn: u32, at_ms: u64, count: u64) -> Time {
        let at = self.came(conn, 1, count > 1, count);
        let Some(Event::Delivered { at_ms: of, .. }) = self.events.last_mut() else {
            panic!("it just came")
        };
        *of = at_ms;
        at
    }

    fn came(&mut self, conn: u32, message: u64, redelivered: bool, count: u64) -> Time {
        self.came_with_id(conn, message, redelivered, count, &format!("id-{message}"))
    }

    fn came_with_id(&mut self, conn: u32, message: u64, redelivered: bool, count: u64, id: &str) -> Time {
        self.add(Event::Delivered {
            conn,
            sub: conn * 10,
            message,
            redelivered,
            count,
            message_id: id.to_owned(),
            intact: true,
            at_ms: 0,
        })
    }

    fn crash(&mut self) {
        self.add(Event::Killing);
        self.add(Event::Down);
    }

    fn found(&self) -> BTreeSet<Kind> {
        let rules = Rules {
            failures_max: 2,
            ordered: &[A],
            auto: &[B],
        };
        check(&self.events, &rules)
            .0
            .into_iter()
            .map(|violation| violation.kind)
            .collect()
    }

    fn is_fine(&self) {
        let rules = Rules {
            failures_max: 2,
            ordered: &[A],
            auto: &[B],
        };
        assert_eq!(check(&self.events, &rules).0, []);
    }

    fn shows(&self, kind: Kind) {
        assert_eq!(self.found(), BTreeSet::from([kind]));
    }
}

fn send(message: u64, queue: &'static str) -> What {
    What::Send {
        message,
        queue,
        tx: None,
    }
}

fn send_in(tx: u32, message: u64, queue: &'static str) -> What {
    What::Send {
        message,
        queue,
        tx: Some(tx),
    }
}

fn ack(delivery: Time) -> What {
    What::Ack { delivery, tx: None }
}

fn ack_in(tx: u32, delivery: Time) -> What {
    What::Ack {
        delivery,
        tx: Some(tx),
    }
}

fn nack(delivery: Time) -> What {
    What::Nack {
        delivery,
        tx: None,
        due_ms: None,
    }
}

/// Message 1 in queue a, confirmed, and a subscriber on connection 2.
fn one_message(mode: Mode) -> Book {
    let mut book = Book::default();
    book.sure(1, send(1, A));
    book.subscribe(2, A, mode);
    book
}

#[test]
fn a_plain_job_is_fine() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.sure(2, ack(d));
    book.is_fine();
}

#[test]
fn a_confirmed_message_must_come() {
    one_message(Mode::Individual).shows(Kind::Lost);
    let mut unconfirmed = Book::default();
    unconfirmed.perhaps(1, send(1, A));
    unconfirmed.is_fine();
}

#[test]
fn a_later_receipt_confirms_every_earlier_frame() {
    let mut book = Book::default();
    book.perhaps(1, send(1, A));
    book.sure(1, What::Begin { tx: 1 });
    book.shows(Kind::Lost);
}

#[test]
fn what_came_and_was_not_settled_must_come_again() {
    let mut book = one_message(Mode::Individual);
    book.came(2, 1, false, 1);
    book.crash();
    book.shows(Kind::Lost);
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 1);
    book.sure(3, ack(d));
    book.is_fine();
}

#[test]
fn a_settlement_that_did_not_hold_does_not_excuse_a_later_loss() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.perhaps(2, ack(d));
    book.crash();
    book.is_fine();
    book.subscribe(3, A, Mode::Individual);
    book.came(3, 1, true, 2);
    book.shows(Kind::Lost);
}

#[test]
fn what_is_settled_with_a_receipt_must_not_come_again() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.sure(2, ack(d));
    book.crash();
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 2);
    book.sure(3, ack(d));
    book.shows(Kind::SettledAgain);
}

#[test]
fn in_client_mode_an_ack_settles_all_before_it_and_no_more() {
    let mut book = Book::default();
    for message in 1..=3 {
        book.sure(1, send(message, A));
    }
    book.subscribe(2, A, Mode::Client);
    book.came(2, 1, false, 1);
    let second = book.came(2, 2, false, 1);
    book.came(2, 3, false, 1);
    book.sure(2, ack(second));
    book.crash();
    book.shows(Kind::Lost);
    book.subscribe(3, A, Mode::Client);
    let third = book.came(3, 3, true, 2);
    book.sure(3, ack(third));
    book.is_fine();
    book.came(3, 1, true, 2);
    assert!(book.found().contains(&Kind::SettledAgain));
}

#[test]
fn a_transaction_is_whole() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.perhaps(2, What::Begin { tx: 7 });
    book.perhaps(2, send_in(7, 10, A));
    book.perhaps(2, ack_in(7, d));
    book.perhaps(2, send_in(7, 11, B));
    let before = book.events.len();
    book.perhaps(2, What::Commit { tx: 7 });
    book.crash();

    // Nothing of it happened: the settled message comes again.
    book.subscribe(3, A, Mode::Individual);
    book.subscribe(4, B, Mode::Individual);
    let again = book.came(3, 1, true, 2);
    book.sure(3, ack(again));
    book.is_fine();
    // One of its messages happened.
    let sent = book.came(3, 10, false, 1);
    book.sure(3, ack(sent));
    book.shows(Kind::TransactionSplit);
    // Both of its messages happened and the settlement did not.
    let sent = book.came(4, 11, false, 1);
    book.sure(4, ack(sent));
    book.shows(Kind::TransactionSplit);

    // It was never committed.
    let mut open = book;
    let Event::Sent { what, .. } = &mut open.events[before] else {
        panic!("this is the COMMIT")
    };
    *what = What::Abort { tx: 7 };
    open.shows(Kind::AbortedVisible);
}

#[test]
fn a_transaction_that_vanishes_with_what_it_settled_is_found() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.perhaps(2, What::Begin { tx: 7 });
    book.perhaps(2, send_in(7, 10, A));
    book.perhaps(2, ack_in(7, d));
    book.perhaps(2, What::Commit { tx: 7 });
    book.crash();
    book.shows(Kind::TransactionSplit);
}

#[test]
fn a_transaction_of_settlements_alone_is_whole() {
    let mut book = Book::default();
    book.sure(1, send(1, A));
    book.sure(1, send(2, A));
    book.subscribe(2, A, Mode::Individual);
    let first = book.came(2, 1, false, 1);
    let second = book.came(2, 2, false, 1);
    book.perhaps(2, What::Begin { tx: 7 });
    book.perhaps(2, ack_in(7, first));
    book.perhaps(2, ack_in(7, second));
    book.perhaps(2, What::Commit { tx: 7 });
    book.crash();
    book.is_fine();
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 2);
    book.sure(3, ack(d));
    book.shows(Kind::TransactionSplit);
    let d = book.came(3, 2, true, 2);
    book.sure(3, ack(d));
    book.is_fine();
}

#[test]
fn a_confirmed_transaction_must_happen() {
    let mut book = Book::default();
    book.perhaps(1, What::Begin { tx: 7 });
    book.perhaps(1, send_in(7, 10, A));
    book.sure(1, What::Commit { tx: 7 });
    book.shows(Kind::Lost);
    book.subscribe(2, A, Mode::Individual);
    let d = book.came(2, 10, false, 1);
    book.sure(2, ack(d));
    book.is_fine();
}

#[test]
fn the_receipt_of_a_staged_frame_settles_nothing() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.perhaps(2, What::Begin { tx: 7 });
    book.sure(2, ack_in(7, d));
    book.crash();
    book.shows(Kind::Lost);
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 2);
    book.sure(3, ack(d));
    book.is_fine();
}

#[test]
fn after_an_abort_the_client_holds_again_what_it_had_settled() {
    let mut book = one_message(Mode::Client);
    let d = book.came(2, 1, false, 1);
    book.perhaps(2, What::Begin { tx: 7 });
    book.perhaps(2, ack_in(7, d));
    book.sure(2, What::Abort { tx: 7 });
    book.shows(Kind::Lost);
    book.sure(2, ack(d));
    book.is_fine();
}

#[test]
fn bytes_must_be_what_was_sent() {
    let mut book = one_message(Mode::Individual);
    let d = book.add(Event::Delivered {
        conn: 2,
        sub: 20,
        message: 1,
        redelivered: false,
        count: 1,
        message_id: "x".into(),
        intact: false,
        at_ms: 0,
    });
    book.sure(2, ack(d));
    book.shows(Kind::BytesDiffer);
}

#[test]
fn first_deliveries_of_one_producer_are_in_order() {
    for (producers, fine) in [([1, 1], false), ([1, 3], true)] {
        let mut book = Book::default();
        book.sure(producers[0], send(1, A));
        book.sure(producers[1], send(2, A));
        book.subscribe(2, A, Mode::Client);
        book.came(2, 2, false, 1);
        let last = book.came(2, 1, false, 1);
        book.sure(2, ack(last));
        if fine {
            book.is_fine();
        } else {
            book.shows(Kind::OrderBroken);
        }
    }
}

#[test]
fn the_order_of_a_transaction_is_that_of_its_commit() {
    let mut book = Book::default();
    book.perhaps(1, What::Begin { tx: 7 });
    book.perhaps(1, send_in(7, 1, A));
    book.perhaps(1, send(2, A));
    book.sure(1, What::Commit { tx: 7 });
    book.subscribe(2, A, Mode::Client);
    book.came(2, 2, false, 1);
    let last = book.came(2, 1, false, 1);
    book.sure(2, ack(last));
    book.is_fine();
}

#[test]
fn a_redelivery_is_marked_and_counted() {
    for (redelivered, count, fine) in [
        (true, 2, true),
        (true, 3, true),
        (false, 2, false),
        (true, 1, false),
    ] {
        let mut book = one_message(Mode::Individual);
        book.came(2, 1, false, 1);
        book.add(Event::Closing { conn: 2 });
        book.subscribe(3, A, Mode::Individual);
        let d = book.came(3, 1, redelivered, count);
        book.sure(3, ack(d));
        if fine {
            book.is_fine();
        } else {
            book.shows(Kind::NotMarked);
        }
    }
}

#[test]
fn a_message_has_one_holder() {
    let mut book = one_message(Mode::Individual);
    book.came(2, 1, false, 1);
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 2);
    book.sure(3, ack(d));
    book.shows(Kind::HeldTwice);
}

#[test]
fn a_staged_settlement_still_holds() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.perhaps(2, What::Begin { tx: 7 });
    book.perhaps(2, ack_in(7, d));
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 2);
    book.sure(3, ack(d));
    book.shows(Kind::HeldTwice);
}

#[test]
fn a_delivery_read_late_from_an_ended_subscription_is_no_violation() {
    let mut book = one_message(Mode::Individual);
    let frame = book.frame(2, true, What::Unsubscribe { sub: 20 });
    book.subscribe(3, A, Mode::Individual);
    let d = book.came(3, 1, true, 2);
    book.sure(3, ack(d));
    book.came(2, 1, false, 1);
    book.is_fine();
    book.add(Event::Receipt { conn: 2, frame });
    book.is_fine();
    book.came(2, 1, false, 1);
    book.shows(Kind::AfterUnsubscribe);
}

#[test]
fn dead_letters_need_their_failures() {
    let mut book = one_message(Mode::Individual);
    let d = book.came(2, 1, false, 1);
    book.sure(2, nack(d));
    let d = book.came(2, 1, true, 2);
    book.subscribe(3, DEAD, Mode::Individual);
    let early = book.events.len();
    book.sure(2, nack(d));
    let dead = book.came_with_id(3, 1, false, 1, "id-1");
    book.sure(3, ack(dead));
    book.is_fine();

    let mut again = Book {
        events: book.events.clone(),
        frames: book.frames,
    };
    again.came(3, 1, true, 2);
    assert!(again.found().contains(&Kind::SettledAgain));

    let mut back = Book {
        events: book.events.clone(),
        frames: book.frames,
    };
    back.came(2, 1, true, 3);
    assert!(back.found().contains(&Kind::DeadLetterWrong));

    // The second failure was never asked for.
    book.events.drain(early..early + 2);
    book.events.iter_mut().for_each(|event| {
        if let Event::Sent {
            what: What::Ack { delivery, .. },
            ..
        } = event
        {
            *delivery -= 2;
        }
    });
    assert!(book.found().contains(&Kind::DeadLetterWrong));
}

#[test]
fn a_message_that_failed_for_good_is_a_dead_letter() {
    let mut book = one_message(Mode::Individual);
    for count in 1..=2 {
        let d = book.came(2, 1, count > 1, count);
        book.sure(2, nack(d));
    }
    let d = book.came(2, 1, true, 3);
    book.sure(2, ack(d));
    book.shows(Kind::DeadLetterWrong);
}

#[test]
fn strangers_are_found() {
    let mut unknown = Book::default();
    unknown.subscribe(2, A, Mode::Individual);
    unknown.came(2, 9, false, 1);
    unknown.shows(Kind::Stranger);

    let mut elsewhere = Book::default();
    elsewhere.sure(1, send(1, B));
    elsewhere.subscribe(2, A, Mode::Individual);
    let d = elsewhere.came(2, 1, false, 1);
    elsewhere.sure(2, ack(d));
    elsewhere.shows(Kind::Stranger);
}

#[test]
fn receipts_are_in_order_once_and_asked_for() {
    let mut book = Book::default();
    let first = book.frame(1, true, What::Begin { tx: 1 });
    let second = book.frame(1, true, What::Abort { tx: 1 });
    let plain = book.frame(1, false, What::Begin { tx: 2 });
    for (frames, fine) in [
        (&[first, second][..], true),
        (&[second, first], false),
        (&[first, first], false),
        (&[plain], false),
    ] {
        let mut book = Book {
            events: book.events.clone(),
            frames: book.frames,
        };
        for frame in frames {
            book.add(Event::Receipt {
                conn: 1,
                frame: *frame,
            });
        }
        if fine {
            book.is_fine();
        } else {
            book.shows(Kind::ReceiptWrong);
        }
    }
}

#[test]
fn message_ids_are_stable_and_unique() {
    let mut book = one_message(Mode::Individual);
    book.sure(1, send(2, A));
    book.came_with_id(2, 1, false, 1, "x");
    let second = book.came_with_id(2, 2, false, 1, "x");
    book.sure(2, ack(second));
    assert!(book.found().contains(&Kind::MessageIdWrong));

    let mut book = one_message(Mode::Individual);
    book.came_with_id(2, 1, false, 1, "x");
    book.crash();
    book.subscribe(3, A, Mode::Individual);
    let d = book.came_with_id(3, 1, true, 1, "y");
    book.sure(3, ack(d));
    book.shows(Kind::MessageIdWrong);
}

#[test]
fn an_auto_queue_may_lose_only_what_was_on_its_way() {
    let mut book = Book::default();
    for message in 1..=4 {
        book.sure(1, send(message, B));
    }
    book.subscribe(2, B, Mode::Auto);
    book.came(2, 1, false, 1);
    let early = book.events.len();
    book.crash();
    book.subscribe(3, B, Mode::Auto);
    book.came(3, 4, true, 1);
    // 2 and 3 were on their way when the connection broke.
    book.came(3, 4, true, 2);
    book.events.insert(early, Event::Lost { conn: 2 });
    book.events.swap(early, early + 1);
    book.is_fine();

    // But not if 2 was known to be on its way again after them.
    let mut gap = Book::default();
    for message in 1..=3 {
        gap.sure(1, send(message, B));
    }
    gap.subscribe(2, B, Mode::Auto);
    gap.came(2, 1, false, 1);
    gap.came(2, 3, false, 1);
    gap.add(Event::Closing { conn: 2 });
    gap.shows(Kind::Lost);
}

#[test]
fn what_rests_comes_at_its_time_and_not_before() {
    for (confirmed, at_ms, early) in [(true, 100, false), (true, 99, true), (false, 99, false)] {
        let mut book = Book::default();
        book.sure(1, send(1, A));
        book.subscribe(2, A, Mode::Individual);
        let d = book.came(2, 1, false, 1);
        let rest = What::Nack {
            delivery: d,
            tx: None,
            due_ms: Some(100),
        };
        match confirmed {
            true => book.sure(2, rest),
            false => book.perhaps(2, rest),
        }
        book.crash();
        book.subscribe(3, A, Mode::Individual);
        let d = book.came_at(3, at_ms, 2);
        book.sure(3, ack(d));
        match early {
            true => book.shows(Kind::Early),
            false => book.is_fine(),
        }
    }
}

/// Message 1 in queue a, held with a lease by connection 2, and a subscriber on connection 3 without.
fn one_lease() -> (Book, Time) {
    let mut book = Book::default();
    book.sure(1, send(1, A));
    book.lease(2, A);
    let d = book.came_at(2, 0, 1);
    book.subscribe(3, A, Mode::Individual);
    (book, d)
}

#[test]
fn a_lease_is_not_cut_short() {
    for (at_ms, cut) in [(99, true), (100, false)] {
        let (mut book, _) = one_lease();
        let d = book.came_at(3, at_ms, 2);
        book.sure(3, ack(d));
        match cut {
            true => book.shows(Kind::LeaseCut),
            false => book.is_fine(),
        }

        let (mut book, d) = one_lease();
        let frame = book.frame(2, true, ack(d));
        book.add(Event::LeaseLost {
            conn: 2,
            frame,
            at_ms,
        });
        let d = book.came_at(3, 100, 2);
        book.sure(3, ack(d));
        match cut {
            true => book.shows(Kind::LeaseCut),
            false => book.is_fine(),
        }
    }
}

#[test]
fn a_refused_answer_settles_nothing() {
    let (mut book, d) = one_lease();
    let frame = book.frame(2, true, ack(d));
    book.add(Event::LeaseLost {
        conn: 2,
        frame,
        at_ms: 100,
    });
    book.shows(Kind::Lost);

    let (mut book, d) = one_lease();
    book.perhaps(2, What::Begin { tx: 7 });
    book.perhaps(2, send_in(7, 2, A));
    book.perhaps(2, ack_in(7, d));
    let frame = book.frame(2, true, What::Commit { tx: 7 });
    book.add(Event::LeaseLost {
        conn: 2,
        frame,
        at_ms: 100,
    });
    let d = book.came_at(3, 100, 2);
    book.sure(3, ack(d));
    book.is_fine();
    let d = book.came(3, 2, false, 1);
    book.sure(3, ack(d));
    book.shows(Kind::AbortedVisible);
}

#[test]
fn a_confirmed_answer_behind_the_end_of_its_lease_holds() {
    let (mut book, d) = one_lease();
    let other = book.came_at(3, 100, 2);
    book.add(Event::Closing { conn: 3 });
    book.sure(2, ack(d));
    book.is_fine();
    book.subscribe(4, A, Mode::Individual);
    let d = book.came_at(4, 200, 3);
    book.sure(4, ack(d));
    book.shows(Kind::SettledAgain);
    assert_ne!(d, other);
}

#[test]
fn a_lease_that_ran_out_is_a_failure() {
    let twice = || {
        let (mut book, _) = one_lease();
        book.lease(4, A);
        book.came_at(4, 100, 2);
        book
    };
    let mut back = twice();
    let d = back.came_at(3, 200, 3);
    back.sure(3, ack(d));
    back.shows(Kind::DeadLetterWrong);

    let mut crashed = twice();
    crashed.crash();
    crashed.subscribe(5, A, Mode::Individual);
    let d = crashed.came_at(5, 200, 2);
    crashed.sure(5, ack(d));
    crashed.is_fine();

    let mut dead = twice();
    dead.subscribe(5, DEAD, Mode::Individual);
    let d = dead.came_at(5, 200, 1);
    dead.sure(5, ack(d));
    dead.is_fine();

    // One of them, and no connection on which another may have been.
    let (mut early, _) = one_lease();
    early.subscribe(5, DEAD, Mode::Individual);
    let d = early.came_at(5, 200, 1);
    early.sure(5, ack(d));
    let mut unknown = Book {
        events: early.events.clone(),
        frames: early.frames,
    };
    early.sure(2, What::Unsubscribe { sub: 20 });
    early.shows(Kind::DeadLetterWrong);
    unknown.add(Event::Closing { conn: 2 });
    unknown.is_fine();
}

#[test]
fn what_is_read_behind_the_end_of_its_lease_came_before_the_next_delivery() {
    let mut book = Book::default();
    book.sure(1, send(1, A));
    book.lease(2, A);
    book.subscribe(3, A, Mode::Individual);
    let d = book.came_at(3, 100, 2);
    book.sure(3, ack(d));
    book.came_at(2, 100, 1);
    book.is_fine();
}

#[test]
fn errors_and_lost_connections_need_a_cause() {
    let mut book = Book::default();
    book.add(Event::Refused {
        conn: 1,
        text: "no".into(),
    });
    book.shows(Kind::Refused);

    let mut lost = Book::default();
    lost.add(Event::Lost { conn: 1 });
    lost.shows(Kind::Refused);

    let mut killed = Book::default();
    killed.add(Event::Killing);
    killed.add(Event::Lost { conn: 1 });
    killed.add(Event::Down);
    killed.is_fine();
}

fn again(message: u64, queue: &'static str, tx: Option<u32>) -> What {
    What::Resend { message, queue, tx }
}

#[test]
fn one_sent_again_is_one_message() {
    let lost = || {
        let mut book = Book::default();
        book.perhaps(1, send(1, A));
        book.crash();
        book.sure(2, again(1, A, None));
        book
    };
    lost().shows(Kind::Lost);
    let came = || {
        let mut book = lost();
        book.subscribe(3, A, Mode::Individual);
        let at = book.came(3, 1, false, 1);
        book.sure(3, ack(at));
        book
    };
    came().is_fine();
    let mut book = came();
    book.came_with_id(3, 1, false, 1, "another");
    let kinds = book.found();
    assert!(kinds.contains(&Kind::MessageIdWrong) && kinds.contains(&Kind::SettledAgain));
    // Never confirmed: it may have been lost each time.
    let mut book = Book::default();
    book.perhaps(1, send(1, A));
    book.perhaps(2, again(1, A, None));
    book.is_fine();
}

#[test]
fn a_transaction_sent_again_is_one_transaction() {
    let begun = |committed: bool| {
        let mut book = Book::default();
        book.perhaps(1, What::Begin { tx: 1 });
        book.perhaps(1, send_in(1, 1, A));
        book.perhaps(1, send_in(1, 2, A));
        if committed {
            book.perhaps(1, What::Commit { tx: 1 });
        }
        book.crash();
        book.perhaps(2, What::Begin { tx: 2 });
        book.perhaps(2, again(1, A, Some(2)));
        book.perhaps(2, again(2, A, Some(2)));
        book
    };
    let take = |book: &mut Book, messages: &[u64]| {
        book.subscribe(3, A, Mode::Individual);
        for message in messages {
            let at = book.came(3, *message, false, 1);
            book.sure(3, ack(at));
        }
    };
    let commit = What::Commit { tx: 2 };
    for committed in [false, true] {
        let mut book = begun(committed);
        book.sure(2, commit.clone());
        book.shows(Kind::Lost);
        take(&mut book, &[1, 2]);
        book.is_fine();
        let mut book = begun(committed);
        book.sure(2, commit.clone());
        take(&mut book, &[1]);
        book.shows(Kind::TransactionSplit);
    }
    // The first one did it.
    let mut book = begun(true);
    take(&mut book, &[1, 2]);
    book.is_fine();
    let mut book = begun(false);
    take(&mut book, &[1, 2]);
    book.shows(Kind::AbortedVisible);
}
