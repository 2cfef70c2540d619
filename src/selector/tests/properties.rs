//! Selectors against an oracle of a few lines, in which a truth is 0 (false), 1 (unknown) or 2 (true), so that AND is the
//! least, OR the greatest and NOT the distance to 2.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{LIMITS, Selector, parse};

const NAMES: [&str; 4] = ["a", "b", "c-d", "JMSType"];
/// The headers of the names.
const HEADERS: [&str; 4] = ["a", "b", "c-d", "type"];
const TEXTS: [&str; 12] = [
    "", "0", "1", "2", "-1", "01", "1.5", "x", "xx", "x%y", "true", "FALSE",
];

#[derive(Debug, Clone)]
enum Tree {
    Truth(bool),
    Flag(usize),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
    Not(Box<Tree>),
    Same(Box<Tree>, Box<Tree>),
    Compare(Sum, &'static str, Sum),
    Text(usize, bool, &'static str),
    Between(Sum, bool, Sum, Sum),
    In(usize, bool, Vec<&'static str>, Vec<i8>),
    Like(usize, bool, String),
    Null(usize, bool),
}

#[derive(Debug, Clone)]
enum Sum {
    Number(i8),
    Header(usize),
    Negative(Box<Sum>),
    Two(Box<Sum>, char, Box<Sum>),
}

fn sum() -> impl Strategy<Value = Sum> {
    let leaf = prop_oneof![
        (-3_i8..4).prop_map(Sum::Number),
        (0..NAMES.len()).prop_map(Sum::Header)
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Sum::Negative(Box::new(one))),
            (inner.clone(), select(vec!['+', '-', '*', '/']), inner).prop_map(|(left, how, right)| Sum::Two(
                Box::new(left),
                how,
                Box::new(right)
            )),
        ]
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    let name = 0..NAMES.len();
    let comparisons = vec!["=", "<>", "<", "<=", ">", ">="];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Tree::Truth),
        name.clone().prop_map(Tree::Flag),
        (sum(), select(comparisons), sum()).prop_map(|(left, how, right)| Tree::Compare(left, how, right)),
        (name.clone(), any::<bool>(), select(TEXTS.to_vec()))
            .prop_map(|(of, not, text)| Tree::Text(of, not, text)),
        (sum(), any::<bool>(), sum(), sum())
            .prop_map(|(of, not, low, high)| Tree::Between(of, not, low, high)),
        (
            name.clone(),
            any::<bool>(),
            vec(select(TEXTS.to_vec()), 0..3),
            vec(-1_i8..2, 1..3)
        )
            .prop_map(|(of, not, texts, numbers)| Tree::In(of, not, texts, numbers)),
        (name.clone(), any::<bool>(), "[x%_1ß]{0,5}").prop_map(|(of, not, like)| Tree::Like(of, not, like)),
        (name, any::<bool>()).prop_map(|(of, not)| Tree::Null(of, not)),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let two = (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        prop_oneof![
            two.clone().prop_map(|(a, b)| Tree::And(a, b)),
            two.clone().prop_map(|(a, b)| Tree::Or(a, b)),
            two.prop_map(|(a, b)| Tree::Same(a, b)),
            inner.prop_map(|one| Tree::Not(Box::new(one))),
        ]
    })
}

fn written_name(index: usize) -> String {
    if NAMES[index].contains('-') {
        format!("\"{}\"", NAMES[index])
    } else {
        NAMES[index].to_owned()
    }
}

fn written_sum(sum: &Sum) -> String {
    match sum {
        Sum::Number(number) => number.to_string(),
        Sum::Header(name) => written_name(*name),
        Sum::Negative(inner) => format!("- ({})", written_sum(inner)),
        Sum::Two(left, how, right) => format!("({}) {how} ({})", written_sum(left), written_sum(right)),
    }
}

fn written(tree: &Tree) -> String {
    let word = |not: &bool| if *not { "NOT " } else { "" };
    match tree {
        Tree::Truth(truth) => truth.to_string(),
        Tree::Flag(name) => written_name(*name),
        Tree::And(a, b) => format!("({}) AND ({})", written(a), written(b)),
        Tree::Or(a, b) => format!("({}) OR ({})", written(a), written(b)),
        // The second is no header alone, so that truths are compared and not texts.
        Tree::Same(a, b) => format!("({}) = (NOT NOT ({}))", written(a), written(b)),
        Tree::Not(inner) => format!("NOT ({})", written(inner)),
        // With a sign in front, so that two headers are compared as numbers.
        Tree::Compare(left, how, right) => format!("+({}) {how} {}", written_sum(left), written_sum(right)),
        Tree::Text(name, not, text) => {
            format!(
                "{} {} '{text}'",
                written_name(*name),
                if *not { "<>" } else { "=" }
            )
        }
        Tree::Between(of, not, low, high) => format!(
            "{} {}BETWEEN {} AND {}",
            written_sum(of),
            word(not),
            written_sum(low),
            written_sum(high)
        ),
        Tree::In(name, not, texts, numbers) => {
            let texts = texts.iter().map(|text| format!("'{text}'"));
            let all: Vec<_> = texts.chain(numbers.iter().map(ToString::to_string)).collect();
            format!("{} {}IN ({})", written_name(*name), word(not), all.join(","))
        }
        Tree::Like(name, not, like) => format!("{} {}LIKE '{like}'", written_name(*name), word(not)),
        Tree::Null(name, not) => format!("{} IS {}NULL", written_name(*name), word(not)),
    }
}

type Message = [Option<&'static str>; 4];

/// Whole numbers and halves are exact in a double, but for their quotients: those are cut where both sides are whole.
#[derive(Clone, Copy)]
struct Figure {
    value: f64,
    whole: bool,
}

fn figure(sum: &Sum, message: &Message) -> Option<Figure> {
    match sum {
        Sum::Number(number) => Some(Figure {
            value: f64::from(*number),
            whole: true,
        }),
        Sum::Header(name) => {
            let text = message[*name]?;
            let value = text.parse().ok()?;
            Some(Figure {
                value,
                whole: !text.contains('.'),
            })
        }
        Sum::Negative(inner) => figure(inner, message).map(|of| Figure {
            value: -of.value,
            ..of
        }),
        Sum::Two(left, how, right) => {
            let (left, right) = (figure(left, message)?, figure(right, message)?);
            let whole = left.whole && right.whole;
            let value = match how {
                '+' => left.value + right.value,
                '-' => left.value - right.value,
                '*' => left.value * right.value,
                _ if right.value == 0.0 => return None,
                _ if whole => (left.value / right.value).trunc(),
                _ => left.value / right.value,
            };
            Some(Figure { value, whole })
        }
    }
}

fn three(truth: Option<bool>) -> u8 {
    truth.map_or(1, |truth| if truth { 2 } else { 0 })
}

fn negated(not: bool, truth: u8) -> u8 {
    if not { 2 - truth } else { truth }
}

fn naive_like(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skipped| naive_like(rest, &text[skipped..])),
        Some((sign, rest)) => text
            .split_first()
            .is_some_and(|(first, after)| (*sign == '_' || sign == first) && naive_like(rest, after)),
    }
}

fn truth(tree: &Tree, message: &Message) -> u8 {
    let at_least = |left: &Sum, right: &Sum| {
        let (left, right) = (figure(left, message), figure(right, message));
        three(left.zip(right).map(|(left, right)| left.value >= right.value))
    };
    match tree {
        Tree::Truth(truth) => three(Some(*truth)),
        Tree::Flag(name) => match message[*name] {
            Some("true") => 2,
            Some("FALSE") => 0,
            _ => 1,
        },
        Tree::And(a, b) => truth(a, message).min(truth(b, message)),
        Tree::Or(a, b) => truth(a, message).max(truth(b, message)),
        Tree::Same(a, b) => match (truth(a, message), truth(b, message)) {
            (1, _) | (_, 1) => 1,
            (a, b) => three(Some(a == b)),
        },
        Tree::Not(inner) => 2 - truth(inner, message),
        Tree::Compare(left, how, right) => {
            let (above, below) = (at_least(left, right), at_least(right, left));
            match *how {
                ">=" => above,
                "<=" => below,
                "<" => 2 - above,
                ">" => 2 - below,
                "=" => above.min(below),
                _ => 2 - above.min(below),
            }
        }
        Tree::Text(name, not, text) => negated(*not, three(message[*name].map(|value| value == *text))),
        Tree::Between(of, not, low, high) => negated(*not, at_least(of, low).min(at_least(high, of))),
        Tree::In(name, not, texts, numbers) => {
            let texts = texts
                .iter()
                .map(|text| three(message[*name].map(|value| value == *text)));
            let numbers = numbers.iter().map(|number| {
                let value = figure(&Sum::Header(*name), message);
                three(value.map(|of| (of.value - f64::from(*number)).abs() < f64::EPSILON))
            });
            negated(*not, texts.chain(numbers).max().unwrap_or(0))
        }
        Tree::Like(name, not, like) => {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let matched = message[*name].map(|text| naive_like(&chars(like), &chars(text)));
            negated(*not, three(matched))
        }
        Tree::Null(name, not) => negated(*not, three(Some(message[*name].is_none()))),
    }
}

fn value_of(message: &Message, name: &str) -> Option<&'static str> {
    message[HEADERS.iter().position(|header| *header == name).unwrap()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_selector_answers_like_the_oracle(
        tree in tree(),
        values in vec(option::of(select(TEXTS.to_vec())), 4),
    ) {
        let message: Message = values.try_into().unwrap();
        let text = written(&tree);
        let selector = parse(&text);
        let printed = selector.to_string();
        prop_assert_eq!(&parse(&printed), &selector, "{}", text);
        for selector in [&selector, &parse(&printed)] {
            let opposite = parse(&format!("NOT ({text})"));
            let answer = match (
                selector.matches(|name| value_of(&message, name)),
                opposite.matches(|name| value_of(&message, name)),
            ) {
                (true, false) => 2,
                (false, true) => 0,
                (false, false) => 1,
                (true, true) => 3,
            };
            prop_assert_eq!(answer, truth(&tree, &message), "{} of {:?}", &text, &message);
        }
    }

    #[test]
    fn like_matches_what_a_naive_matcher_does(pattern in "[ab%_ß]{0,12}", text in "[abß]{0,14}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let selector = parse(&format!("a LIKE '{pattern}'"));
        let expect = naive_like(&chars(&pattern), &chars(&text));
        prop_assert_eq!(selector.matches(|_| Some(&text)), expect, "{} in {}", pattern, text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "([a-c'\"%_() ,.=<>+*/0-9eLx-]|AND|OR |NOT |IN |LIKE |IS |NULL|ß){0,40}", value: String) {
        match Selector::parse(&text, LIMITS) {
            Ok(selector) => {
                selector.matches(|_| Some(&value));
                prop_assert_eq!(&parse(&selector.to_string()), &selector);
            }
            Err(error) => {
                let shown = error.to_string();
                let at = shown.trim_start_matches("character ").split(':').next().unwrap().parse::<usize>();
                prop_assert!(at.is_ok_and(|at| (1..=text.chars().count() + 1).contains(&at)), "{}", shown);
            }
        }
    }
}
