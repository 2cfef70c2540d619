use super::*;

const COUNT: u64 = 300;

fn bodies(run: u32) -> Vec<Vec<u8>> {
    let bodies = Bodies::new(100);
    (0..COUNT)
        .map(|sequence| {
            let mut out = Vec::new();
            bodies.encode(
                &mut out,
                Stamp {
                    run,
                    stream: 0,
                    sequence,
                    sent_ns: 5,
                },
            );
            out
        })
        .collect()
}

/// Delivers `bodies` in turns to `consumers` consumers; both verdicts must be `expect`.
fn check(bodies: &[Vec<u8>], consumers: usize, expect: Faults) {
    let verify = || {
        let mut verifier = Verifier::new(Some(1));
        for (at, body) in bodies.iter().enumerate() {
            verifier.check(at % consumers, body);
        }
        verifier
    };
    assert_eq!(verify().finish(&[COUNT]), expect);
    assert_eq!(verify().finish_unknown(Some(COUNT)), expect);
}

#[test]
fn nothing_wrong() {
    check(&bodies(1), 1, Faults::default());
    check(&bodies(1), 3, Faults::default());
}

#[test]
fn a_loss_in_the_middle_and_at_the_end() {
    let mut all = bodies(1);
    all.remove(70);
    check(
        &all,
        1,
        Faults {
            lost: 1,
            ..Faults::default()
        },
    );
    all.truncate(200);
    check(
        &all,
        1,
        Faults {
            lost: 100,
            ..Faults::default()
        },
    );
}

#[test]
fn a_double_at_once_and_late() {
    let mut all = bodies(1);
    all.insert(70, all[69].clone());
    all.push(all[0].clone());
    check(
        &all,
        1,
        Faults {
            doubled: 2,
            ..Faults::default()
        },
    );
}

#[test]
fn a_swap() {
    let mut all = bodies(1);
    all.swap(70, 71);
    check(
        &all,
        1,
        Faults {
            reordered: 1,
            ..Faults::default()
        },
    );
    // Two consumers each see their own in order: that is no swap.
    check(&all, 2, Faults::default());
}

#[test]
fn an_altered_byte_anywhere_and_a_cut_body() {
    for at in 0..100 {
        let mut all = bodies(1);
        all[70][at] ^= 1;
        check(
            &all,
            1,
            Faults {
                altered: 1,
                lost: 1,
                ..Faults::default()
            },
        );
    }
    let mut all = bodies(1);
    all[3].pop();
    all[4].clear();
    check(
        &all,
        1,
        Faults {
            altered: 2,
            lost: 2,
            ..Faults::default()
        },
    );
}

#[test]
fn a_message_of_another_run() {
    let mut all = bodies(1);
    all.extend(bodies(2).into_iter().take(3));
    check(
        &all,
        1,
        Faults {
            foreign: 3,
            ..Faults::default()
        },
    );
}

#[test]
fn a_message_never_sent() {
    let mut verifier = Verifier::new(Some(1));
    for body in bodies(1) {
        verifier.check(0, &body);
    }
    assert_eq!(
        verifier.finish(&[COUNT - 2]),
        Faults {
            foreign: 2,
            ..Faults::default()
        }
    );
}

#[test]
fn fillers_differ() {
    let all = bodies(1);
    assert_ne!(all[0][STAMP_BYTES..], all[1][STAMP_BYTES..]);
}
