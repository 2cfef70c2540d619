//! How often a second a selector is asked, on one core: `cargo bench --bench selector`. A measurement, not a test.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it measures with a clock, prints, and is run by hand"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use steadfast::selector::{Selector, SelectorLimits};

const LIMITS: SelectorLimits = SelectorLimits {
    selector_bytes_max: 10_000,
    selector_depth_max: 64,
};

const HEADERS: &[(&str, &str)] = &[
    ("destination", "/queue/orders"),
    ("content-type", "application/json"),
    ("type", "order"),
    ("customer", "c-4711"),
    ("correlation-id", "0b0e2f6c-6d2a-4f1e-9d55-6f0f9a3f2d11"),
    ("amount", "150.25"),
    ("region", "us"),
    ("priority", "4"),
];

const SELECTORS: &[&str] = &[
    "type='order' AND amount > 100 AND region IN ('eu','us')",
    "type='invoice' AND amount > 100 AND region IN ('eu','us')",
    "JMSCorrelationID = '0b0e2f6c-6d2a-4f1e-9d55-6f0f9a3f2d11'",
    "amount * 1.19 - 10 BETWEEN 100 AND 200 OR JMSPriority > 6",
    "customer LIKE 'c-%' AND \"content-type\" LIKE '%j_on' AND missing IS NULL",
];

fn main() {
    println!("{:>12} {:>12}  selector", "asked/s", "parsed/s");
    for text in SELECTORS {
        let selector = Selector::parse(text, LIMITS).unwrap();
        let value = |name: &str| {
            HEADERS
                .iter()
                .find(|(of, _)| *of == name)
                .map(|(_, value)| *value)
        };
        let asked = per_second(|| {
            black_box(black_box(&selector).matches(value));
        });
        let parsed = per_second(|| {
            black_box(Selector::parse(black_box(text), LIMITS)).unwrap();
        });
        println!("{asked:>12.0} {parsed:>12.0}  {text}");
    }
    let value = "a".repeat(10_000);
    for text in ["a LIKE '%aaab%'", "a LIKE '%a_ab%'", "a LIKE '%a%a_a%b'"] {
        let selector = Selector::parse(text, LIMITS).unwrap();
        let asked = per_second(|| {
            black_box(black_box(&selector).matches(|_| Some(&value)));
        });
        println!("{asked:>12.0} {:>12}  {text} of 10,000 a", "");
    }
}

fn per_second(mut step: impl FnMut()) -> f64 {
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_millis(500) {
        for _ in 0..100 {
            step();
        }
        count += 100;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
