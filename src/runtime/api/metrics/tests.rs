use super::*;

fn queue(name: &str, depth: u64) -> QueueView {
    QueueView {
        delayed_count: 0,
        name: name.into(),
        depth,
        bytes: 0,
        ready_count: depth,
        leased_count: 0,
        dead_letter_count: 0,
        set_aside_count: 0,
        subscription_count: 0,
        oldest_at_ms: None,
        next_sequence: 0,
        paused: false,
        topic: None,
        selector: None,
        owner: None,
        policy: Default::default(),
        declared: Default::default(),
        dedup_id_count: 0,
        stuck_count: 0,
        counters: Default::default(),
    }
}

fn shown(count_max: usize, depths: &[(&str, u64)]) -> (Vec<String>, u64) {
    let mut deepest = Deepest::new(count_max);
    for (name, depth) in depths {
        deepest.see(queue(name, *depth));
    }
    let (queues, skipped_count) = deepest.end();
    let names = queues.iter().map(|queue| queue.name.to_string()).collect();
    (names, skipped_count)
}

#[test]
fn the_deepest_queues_are_shown_by_name() {
    let depths = [("a", 1), ("b", 5), ("c", 1), ("d", 3), ("e", 1)];
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(shown(0, &depths), (all(&[]), 5));
    assert_eq!(shown(1, &depths), (all(&["b"]), 4));
    assert_eq!(shown(3, &depths), (all(&["a", "b", "d"]), 2));
    assert_eq!(shown(5, &depths), (all(&["a", "b", "c", "d", "e"]), 0));
    assert_eq!(shown(6, &depths), (all(&["a", "b", "c", "d", "e"]), 0));
}

#[test]
fn names_are_as_the_standard_wants_them() {
    for metric in METRICS {
        let name = metric.name();
        assert!(name.starts_with("steadfast_"), "{name}");
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), metric.kind() == "counter", "{name}");
        assert!(
            !metric.help.is_empty() && !metric.help.contains(['\n', '|']),
            "{name}"
        );
    }
}
