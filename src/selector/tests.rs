mod properties;

use super::like::{STRETCH_CHARS_MAX, Sign};
use super::name::NAMES;
use super::{Expected, Selector, SelectorError, SelectorLimits};

const LIMITS: SelectorLimits = SelectorLimits {
    selector_bytes_max: 100_000,
    selector_depth_max: 64,
};

/// The message that the tables are about; what is not here is missing.
const HEADERS: &[(&str, &str)] = &[
    ("amount", "150"),
    ("price", "10.50"),
    ("small", "-2.5e-1"),
    ("big", "9223372036854775807"),
    ("huge", "9223372036854775808"),
    ("region", "eu"),
    ("other-region", "eu"),
    ("same", "150.0"),
    ("empty", ""),
    ("yes", "TRUE"),
    ("no", "false"),
    ("phone", "12993"),
    ("word", "lose"),
    ("percent", "100%"),
    ("under", "_foo"),
    ("quote", "it's"),
    ("breit", "größe"),
    ("größe", "7"),
    ("a.b", "1"),
    ("AND", "1"),
    ("with \"", "1"),
    ("JMSPriority", "literal"),
];

fn header(name: &str) -> Option<&'static str> {
    HEADERS
        .iter()
        .find(|(of, _)| *of == name)
        .map(|(_, value)| *value)
}

fn parse(text: &str) -> Selector {
    Selector::parse(text, LIMITS).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What a condition is, unknown included: neither it nor its opposite is selected then.
fn truth_with(text: &str, value: impl Fn(&str) -> Option<&'static str> + Copy) -> Option<bool> {
    let selector = parse(text);
    let opposite = parse(&format!("NOT ({selector})"));
    match (selector.matches(value), opposite.matches(value)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
        (true, true) => panic!("{text} is true, and so is its opposite"),
    }
}

#[track_caller]
fn check(expect: Option<bool>, texts: &[&str]) {
    for text in texts {
        assert_eq!(truth_with(text, header), expect, "{text}");
        let printed = parse(text).to_string();
        assert_eq!(
            parse(&printed).to_string(),
            printed,
            "{text} is printed as it is read"
        );
    }
}

const TRUE: Option<bool> = Some(true);
const FALSE: Option<bool> = Some(false);
const UNKNOWN: Option<bool> = None;

const TRUTHS: [(Option<bool>, &str); 3] = [
    (TRUE, "amount = 150"),
    (FALSE, "amount = 151"),
    (UNKNOWN, "missing = 150"),
];

/// Table "The AND operator" of 3.8.1.1.
#[test]
fn and_has_three_values() {
    let table = [
        [TRUE, FALSE, UNKNOWN],
        [FALSE, FALSE, FALSE],
        [UNKNOWN, FALSE, UNKNOWN],
    ];
    for ((_, left), row) in TRUTHS.iter().zip(table) {
        for ((_, right), expect) in TRUTHS.iter().zip(row) {
            check(expect, &[&format!("{left} AND {right}")]);
        }
    }
}

/// Table "The OR operator".
#[test]
fn or_has_three_values() {
    let table = [
        [TRUE, TRUE, TRUE],
        [TRUE, FALSE, UNKNOWN],
        [TRUE, UNKNOWN, UNKNOWN],
    ];
    for ((_, left), row) in TRUTHS.iter().zip(table) {
        for ((_, right), expect) in TRUTHS.iter().zip(row) {
            check(expect, &[&format!("{left} OR {right}")]);
        }
    }
}

/// Table "The NOT operator".
#[test]
fn not_has_three_values() {
    for ((_, text), expect) in TRUTHS.iter().zip([FALSE, TRUE, UNKNOWN]) {
        check(expect, &[&format!("NOT {text}"), &format!("NOT NOT NOT {text}")]);
    }
    for (truth, text) in TRUTHS {
        check(
            truth,
            &[&format!("NOT NOT {text}"), &format!("NOT (NOT ({text}))")],
        );
    }
}

#[test]
fn precedence_is_that_of_the_standard() {
    check(
        TRUE,
        &[
            "TRUE OR TRUE AND FALSE",
            "NOT FALSE AND TRUE",
            "NOT amount = 151",
            "NOT region LIKE 'u%' AND TRUE",
            "1 + 2 * 3 = 7",
            "(1 + 2) * 3 = 9",
            "10 - 4 - 3 = 3",
            "16 / 4 / 2 = 2",
            "16 / (4 / 2) = 8",
            "-2 + 3 = 1",
            "- -2 = 2",
            "-(2 + 3) * 2 = -10",
            "2 * -3 = -6",
            "amount BETWEEN 100 AND 200 AND region = 'eu'",
            "amount BETWEEN 100 + 50 AND 75 * 2",
        ],
    );
    check(FALSE, &["(TRUE OR TRUE) AND FALSE", "NOT (FALSE OR TRUE)"]);
}

#[test]
fn numbers_are_compared_as_numbers() {
    check(
        TRUE,
        &[
            "amount = 150",
            "150 = amount",
            "amount = 150.0",
            "amount = 1.5e2",
            "amount = 15E+1",
            "amount = 1500e-1",
            "amount = 150L",
            "amount = 0x96",
            "amount = 0X96l",
            "amount = +150",
            "amount <> 151",
            "amount > 149.5",
            "amount >= 150",
            "amount < 9223372036854775807",
            "amount <= 150",
            "price = 10.5",
            "price > 10",
            "price = 10.50",
            "small = -.25",
            "small < -0.2",
            "small + 1. = 0.75",
            "9 < amount",
            "amount > price",
            "+amount = same",
            "\"größe\" = 7",
            "größe = 7",
            "0 = -0.0",
            "big = 9223372036854775807",
            "big > 9223372036854775806",
            "big < 9223372036854775808",
            "huge > big",
            "-huge < -9223372036854775807",
            "amount > 149.9999999999999",
            "-amount < -149.5",
        ],
    );
    check(
        FALSE,
        &[
            "amount = 151",
            "amount <> 150",
            "amount < 16",
            "amount = '150.0'",
            "amount = same",
        ],
    );
}

/// 3.8.1.1: a header that is missing is NULL, and what is asked of NULL is unknown; so is what is asked of a text that is not
/// of the kind that is asked for.
#[test]
fn what_cannot_be_compared_is_unknown() {
    check(
        UNKNOWN,
        &[
            "missing = 1",
            "missing <> 1",
            "missing = 'a'",
            "missing <> 'a'",
            "missing = missing",
            "missing > 1",
            "missing = TRUE",
            "missing",
            "NOT missing",
            "missing + 1 = 1",
            "missing BETWEEN 1 AND 2",
            "missing NOT BETWEEN 1 AND 2",
            "missing IN ('a')",
            "missing NOT IN ('a')",
            "missing LIKE '%'",
            "missing NOT LIKE '%'",
            "region = 1",
            "region <> 1",
            "region > 1",
            "region < amount",
            "region BETWEEN 1 AND 2",
            "1 BETWEEN region AND 2",
            "region + 1 = 1",
            "-region = 1",
            "empty = 0",
            "empty > 0",
            "region IN (1, 2)",
            "region",
            "region = TRUE",
            "region = FALSE",
            "amount",
            "empty",
        ],
    );
    // As far as it is known, it decides.
    check(FALSE, &["1 BETWEEN 2 AND region", "1 BETWEEN missing AND 0"]);
    check(TRUE, &["1 NOT BETWEEN 2 AND region", "region IN (1, 'eu')"]);
}

#[test]
fn only_digits_are_a_number() {
    let is_number = |text: &'static str| truth_with("a = 0 OR a <> 0", |_| Some(text)) == TRUE;
    for text in [
        "0",
        "-0",
        "+7",
        "007",
        "1.",
        ".5",
        "-.5",
        "1e5",
        "1E-5",
        "1.5e+5",
        "1e-999",
        "99999999999999999999",
    ] {
        assert!(is_number(text), "{text}");
    }
    for text in [
        "", " 1", "1 ", "1L", "0x10", "1,5", "1_000", "inf", "-inf", "NaN", "infinity", "1e", "e5", ".", "-",
        "+", "--1", "1e999", "１",
    ] {
        assert!(!is_number(text), "{text}");
    }
}

#[test]
fn strings_are_equal_or_not() {
    check(
        TRUE,
        &[
            "region = 'eu'",
            "'eu' = region",
            "region <> 'EU'",
            "region <> 'us'",
            "quote = 'it''s'",
            "empty = ''",
            "breit = 'größe'",
            "region = \"other-region\"",
            "amount = '150'",
            "'a' = 'a'",
            "'a' <> 'b'",
            "yes = 'TRUE'",
        ],
    );
    check(
        FALSE,
        &["region = 'us'", "region <> 'eu'", "yes = 'true'", "'a' = 'b'"],
    );
}

#[test]
fn a_header_says_true_or_false() {
    check(
        TRUE,
        &[
            "yes",
            "yes = TRUE",
            "TRUE = yes",
            "NOT no",
            "no = FALSE",
            "no <> TRUE",
            "yes AND amount = 150",
            "(amount = 150) = yes",
            "yes = (amount = 150)",
            "(amount = 150) = (region = 'eu')",
            "(amount = 151) <> yes",
            "NOT NOT yes = TRUE",
            "TRUE = TRUE",
            "true",
        ],
    );
    check(FALSE, &["no", "yes = FALSE", "NOT yes", "FALSE", "TRUE = FALSE"]);
    check(
        UNKNOWN,
        &[
            "(missing = 1) = TRUE",
            "(missing = 1) = (missing = 1)",
            "region = (1 = 1)",
        ],
    );
}

#[test]
fn arithmetic_neither_overflows_nor_fails() {
    check(
        TRUE,
        &[
            "amount + 1 = 151",
            "amount - price = 139.5",
            "amount * 2 = 300",
            "amount / 4 = 37",
            "amount / 4.0 = 37.5",
            "-amount / 4 = -37",
            "big + 1 = 9223372036854775808",
            "big + 1 > 9223372036854775806",
            "-9223372036854775808 - 1 < 0",
            "-9223372036854775808 / -1 > 0",
            "-(-9223372036854775808) > 0",
            "big * big > 1e37",
            "huge > 9e18",
            "1e308 / 10 < 1e308",
        ],
    );
    check(
        UNKNOWN,
        &[
            "amount / 0 = 0",
            "amount / 0.0 > 0",
            "0 / 0 = 0",
            "amount / (1 - 1) <> 0",
            "1e308 * 10 > 0",
            "1e308 + 1e308 = 1",
            "-1e308 - 1e308 < 0",
        ],
    );
}

#[test]
fn between_includes_its_bounds() {
    check(
        TRUE,
        &[
            "amount BETWEEN 150 AND 150",
            "amount BETWEEN 149 AND 151",
            "amount NOT BETWEEN 151 AND 200",
            "amount NOT BETWEEN 200 AND 100",
            "amount + 1 BETWEEN price AND 151",
        ],
    );
    check(
        FALSE,
        &["amount BETWEEN 151 AND 200", "amount NOT BETWEEN 100 AND 200"],
    );
}

#[test]
fn in_is_any_of_its_list() {
    check(
        TRUE,
        &[
            "region IN ('us', 'eu')",
            "region IN ('eu')",
            "region NOT IN ('us', 'EU')",
            "amount IN (1, 150.0)",
            "small IN (-0.25)",
            "amount IN ('150')",
            "amount IN ('x', +150)",
            "(region) IN ('eu')",
        ],
    );
    check(
        FALSE,
        &[
            "region IN ('us')",
            "region NOT IN ('eu')",
            "amount IN (-150, '150.0')",
        ],
    );
}

/// The first ones are the examples of 3.8.1.1.
#[test]
fn like_matches_whole_values() {
    check(
        TRUE,
        &[
            "phone LIKE '12%3'",
            "word LIKE 'l_se'",
            "under LIKE '\\_%' ESCAPE '\\'",
            "phone NOT LIKE '12%4'",
            "region LIKE 'eu'",
            "region LIKE '%'",
            "region LIKE '%%%'",
            "region LIKE '__'",
            "region LIKE '%u'",
            "region LIKE 'e%'",
            "region LIKE '%e%u%'",
            "phone LIKE '%2%9%'",
            "phone LIKE '%2_9%3'",
            "phone LIKE '%_2_9%'",
            "phone LIKE '%__993'",
            "phone LIKE '_____'",
            "phone LIKE '%_____%'",
            "breit LIKE '%_ö_e'",
            "breit LIKE 'gr__e'",
            "breit LIKE '%ß_%'",
            "percent LIKE '100x%' ESCAPE 'x'",
            "percent LIKE '1%!%' ESCAPE '!'",
            "percent LIKE '100%%' ESCAPE '%'",
            "empty LIKE ''",
            "empty LIKE '%'",
            "quote LIKE '%''s'",
        ],
    );
    check(
        FALSE,
        &[
            "word LIKE 'l_ose'",
            "region LIKE 'E%'",
            "region LIKE 'e'",
            "region LIKE 'u%'",
            "region LIKE '_'",
            "region LIKE '___'",
            "region LIKE '%eu_%'",
            "region LIKE 'eu%u'",
            "region LIKE ''",
            "phone LIKE '%9_9%9%'",
            "phone LIKE '%______%'",
            "empty LIKE '_'",
            "empty LIKE '%_%'",
            "amount LIKE '150.0'",
        ],
    );
}

#[test]
fn null_is_a_missing_header() {
    check(
        TRUE,
        &["missing IS NULL", "amount IS NOT NULL", "empty IS NOT NULL"],
    );
    check(FALSE, &["missing IS NOT NULL", "amount IS NULL"]);
}

#[test]
fn names_are_written_plainly_or_quoted() {
    check(
        TRUE,
        &[
            "\"other-region\" = 'eu'",
            "hyphenated_props:other-region = 'eu'",
            "convert_string_expressions:hyphenated_props:other-region = 'eu' AND amount - 1 = 149",
            "hyphenated_props:convert_string_expressions:other-region = 'eu'",
            "convert_string_expressions:amount > 149",
            "a.b = 1",
            "\"a.b\" = 1",
            "\"AND\" = 1",
            "\"with \"\"\" = 1",
            "\"JMSPriority\" = 'literal'",
            "\tamount\r\n=\x0c150 ",
            "amount=150 and not(amount=151)",
            "_x IS NULL AND $y IS NULL",
            "amount-1=149",
            "amount - price > 0",
        ],
    );
    // Names have case.
    check(UNKNOWN, &["Amount = 150", "REGION = 'eu'"]);
}

#[test]
fn jms_names_read_the_headers_that_carry_them() {
    for (identifier, header, _) in NAMES {
        let selector = parse(&format!("{identifier} = 'v'"));
        assert_eq!(&**selector.names().first().unwrap(), *header, "{identifier}");
    }
    let with = |text: &str, name: &'static str, value: &'static str| {
        truth_with(text, |of| (of == name).then_some(value))
    };
    assert_eq!(with("JMSPriority > 6", "priority", "7"), TRUE);
    assert_eq!(with("JMSPriority = 4", "x", ""), TRUE, "the default of JMS");
    assert_eq!(with("priority = 4", "x", ""), UNKNOWN);
    assert_eq!(with("JMSExpiration = 0", "x", ""), TRUE);
    assert_eq!(with("JMSExpiration > 1e3", "expires", "1700000000000"), TRUE);
    assert_eq!(with("JMSCorrelationID LIKE 'c%'", "correlation-id", "c-1"), TRUE);
    assert_eq!(with("JMSType = 'car'", "type", "car"), TRUE);
    assert_eq!(with("JMSXGroupID = 'g'", "JMSXGroupID", "g"), TRUE);
    assert_eq!(with("JMSDeliveryMode = 'PERSISTENT'", "x", ""), TRUE);
    assert_eq!(with("JMSDeliveryMode = 'PERSISTENT'", "persistent", "true"), TRUE);
    assert_eq!(
        with("JMSDeliveryMode = 'NON_PERSISTENT'", "persistent", "false"),
        TRUE
    );
    assert_eq!(with("AMQDurable = 'NON_DURABLE'", "persistent", "false"), TRUE);
    assert_eq!(with("JMSMessageID IS NULL", "message-id", "1"), FALSE);
    for unknown in ["JMSRedelivered", "JMSXDeliveryCount", "JMSFoo", "AMQSize"] {
        refused(&format!("{unknown} = 1"), 1, Expected::KnownJmsName);
    }
    assert_eq!(with("JMS_x = 1 AND JMSXfoo IS NULL", "JMS_x", "1"), TRUE);
}

/// The document has every name of the table, and says of its examples what is so.
#[test]
fn the_document_says_what_is_so() {
    let document = include_str!("../../docs/concepts/selectors.md");
    for (identifier, header, _) in NAMES {
        let row = document
            .lines()
            .find(|line| line.starts_with('|') && line.contains(&format!("`{identifier}`")));
        let row = row.unwrap_or_else(|| panic!("{identifier} is missing"));
        let same = identifier == header && row.contains("the same");
        assert!(same || row.contains(&format!("`{header}`")), "{identifier}");
    }
    let examples: Vec<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let [example, _, _, _, subscribe, message] = *examples else {
        panic!("three examples: {examples:?}");
    };
    let (header, selector) = subscribe.split_once(':').unwrap();
    assert_eq!((header, parse(selector).names().len()), ("selector", 2));
    assert_eq!(parse(example).names().len(), 3);
    let error = Selector::parse("amount > 'much'", LIMITS).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn names_are_told_once() {
    let selector = parse("a = 1 OR b = 2 AND JMSPriority > \"priority\" OR a IS NULL OR \"c-d\" LIKE 'a'");
    let names: Vec<_> = selector.names().iter().map(|name| &**name).collect();
    assert_eq!(names, ["a", "b", "priority", "c-d"]);
    assert!(parse("TRUE").names().is_empty());
    let by_index = parse("a = 1 AND b = 2");
    let values = [Some("1"), Some("2")];
    assert!(by_index.matches_at(|index| values[index]));
    assert!(!by_index.matches_at(|index| values[1 - index]));
}

#[test]
fn a_blank_selector_selects_everything() {
    check(TRUE, &["", "  \t", "convert_string_expressions:"]);
    assert_eq!(parse(""), parse("TRUE"));
}

#[test]
fn equal_selectors_are_those_that_differ_in_writing_only() {
    use std::collections::HashSet;
    for (left, right) in [
        ("a=1.5", " ( a = 15.0E-1 )"),
        ("a = 1 and b = 2", "(a = 1) AND (b = 2)"),
        ("a = 1 AND (b = 2 AND c = 3)", "(a = 1 AND b = 2) AND c = 3"),
        ("a = 1 OR (b = 2 OR c = 3)", "a = 1 OR b = 2 OR c = 3"),
        ("a <> 'x'", "NOT a = 'x'"),
        ("a NOT IN ('x')", "NOT (a IN ('x'))"),
        ("a", "a = TRUE"),
        ("\"a\" = 0x10", "a = 16L"),
        ("\"correlation-id\" = 'c'", "JMSCorrelationID = 'c'"),
        ("AMQPriority = 1", "JMSPriority = 1"),
        ("hyphenated_props:a-b = 'c'", "\"a-b\" = 'c'"),
        ("(a + b) + c = 1", "a + b + c = 1"),
        ("a + (b * c) = 1", "a + b * c = 1"),
        ("a LIKE '%%x!_' ESCAPE '!'", "a LIKE '%x\\_' ESCAPE '\\'"),
    ] {
        let (left, right) = (parse(left), parse(right));
        assert_eq!(left, right);
        assert_eq!(HashSet::from([left, right]).len(), 1);
    }
    for (left, right) in [
        ("a = 1", "a = '1'"),
        ("a = 'x'", "a = 'X'"),
        ("a = b", "+a = b"),
        ("a - (b - c) = 1", "a - b - c = 1"),
        ("a / 2 = 1", "a / 2.0 = 1"),
        ("JMSPriority = 4", "priority = 4"),
        ("JMSDeliveryMode = 'DURABLE'", "AMQDurable = 'DURABLE'"),
        ("a LIKE '_'", "a LIKE '!_' ESCAPE '!'"),
        ("a AND b OR c", "a AND (b OR c)"),
    ] {
        assert_ne!(parse(left), parse(right));
    }
}

#[track_caller]
fn refused(text: &str, at: usize, expected: Expected) {
    let error = Selector::parse(text, LIMITS).unwrap_err();
    assert_eq!(error, SelectorError::Syntax { at, expected }, "{text}: {error}");
}

#[test]
fn an_error_says_where_and_what() {
    for (text, at, expected) in [
        ("amount >", 9, Expected::Value),
        ("= 1", 1, Expected::Value),
        ("größe == 1", 8, Expected::Value),
        ("a = NULL", 5, Expected::IsNull),
        ("NULL IS NULL", 1, Expected::IsNull),
        ("a = 1 b", 7, Expected::Continuation),
        ("a = 1)", 6, Expected::Continuation),
        ("a = b = c", 7, Expected::Continuation),
        ("a ! b", 3, Expected::Continuation),
        ("a = 1;", 6, Expected::Continuation),
        ("(a = 1", 7, Expected::Close),
        ("a + 1", 1, Expected::Condition),
        ("'a'", 1, Expected::Condition),
        ("1", 1, Expected::Condition),
        ("a = 1 AND 'b'", 11, Expected::Condition),
        ("NOT 5", 5, Expected::Condition),
        ("a = 1 AND", 10, Expected::Value),
        ("a > 'x'", 5, Expected::Number),
        ("'x' < a", 1, Expected::Number),
        ("a BETWEEN 'a' AND 'b'", 11, Expected::Number),
        ("a > TRUE", 5, Expected::Number),
        ("1 = '1'", 5, Expected::Number),
        ("a + 1 = 'x'", 9, Expected::Number),
        ("-'x' = 1", 2, Expected::Number),
        ("(a = 1) + 1 = 2", 1, Expected::Number),
        ("TRUE = 1", 8, Expected::Condition),
        ("1 = TRUE", 1, Expected::Condition),
        ("(a = 1) = 1", 11, Expected::Condition),
        ("'x' <> (a = 1)", 1, Expected::Condition),
        ("1 IS NULL", 1, Expected::Header),
        ("a + 1 IN (1)", 1, Expected::Header),
        ("'a' LIKE 'b'", 1, Expected::Header),
        ("a IS 1", 6, Expected::Null),
        ("a IS NOT 1", 10, Expected::Null),
        ("a NOT = 1", 7, Expected::NotOperator),
        ("a BETWEEN 1 OR 2", 13, Expected::BetweenAnd),
        ("a IN 'x'", 6, Expected::ListOpen),
        ("a IN ()", 7, Expected::Literal),
        ("a IN ('x',)", 11, Expected::Literal),
        ("a IN (-'x')", 8, Expected::Literal),
        ("a IN (b)", 7, Expected::Literal),
        ("a IN ('x' 'y')", 11, Expected::ListContinuation),
        ("a LIKE b", 8, Expected::Pattern),
        ("a LIKE 'b' ESCAPE", 18, Expected::EscapeCharacter),
        ("a LIKE 'b' ESCAPE ''", 19, Expected::EscapeCharacter),
        ("a LIKE 'b' ESCAPE 'xy'", 19, Expected::EscapeCharacter),
        ("a LIKE 'b!' ESCAPE '!'", 8, Expected::Escaped),
        ("a LIKE '!b' ESCAPE '!'", 8, Expected::Escaped),
        ("a = 'b", 5, Expected::Quote),
        ("a = 'b''", 5, Expected::Quote),
        ("\"a = 1", 1, Expected::DoubleQuote),
        ("\"\" = 1", 1, Expected::QuotedName),
        ("a = 017", 5, Expected::DecimalNumber),
        ("a = 0x", 7, Expected::HexDigit),
        ("a = 0xFFFFFFFFFFFFFFFF", 5, Expected::NumberInRange),
        ("a = 1e999", 5, Expected::NumberInRange),
        ("a = .", 5, Expected::Value),
        ("a = 5e", 6, Expected::Continuation),
        ("a = 5x", 6, Expected::Continuation),
        ("content-type = 'x'", 8, Expected::HyphenMeaning),
        ("1 --a = 1", 4, Expected::SpacedSigns),
        ("hyphenated_props:a-b = ", 24, Expected::Value),
        ("XPATH '//a'", 7, Expected::Continuation),
        ("AND", 1, Expected::Value),
        ("a = AND", 5, Expected::Value),
    ] {
        refused(text, at, expected);
    }
    let error = Selector::parse("größe >", LIMITS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "character 8: expected a header name, a literal or ("
    );
}

#[test]
fn text_and_depth_have_bounds() {
    let limits = SelectorLimits {
        selector_bytes_max: 7,
        selector_depth_max: 1,
    };
    let parse = |text| Selector::parse(text, limits);
    assert!(parse("(a = 1)").is_ok());
    assert_eq!(
        parse("(a = 10)").unwrap_err(),
        SelectorError::TooLong { bytes_max: 7 }
    );
    assert!(parse("(a)OR(b").is_err_and(|error| error
        == SelectorError::Syntax {
            at: 8,
            expected: Expected::Close
        }));
    let deep = parse(" ((a)) ").unwrap_err();
    assert_eq!(deep, SelectorError::TooDeep { at: 3, depth_max: 1 });
    assert_eq!(
        deep.to_string(),
        "character 3: more than 1 parentheses within each other (selector_depth_max)"
    );
    assert!(Selector::parse(&"(".repeat(90_000), LIMITS).is_err());
}

/// As deep as `SelectorLimits` calls safe, at no more than it says for each.
#[test]
fn depth_fits_a_small_stack() {
    let nested =
        |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(64), close.repeat(64));
    let texts = [
        nested("a = 1 OR a = 2 AND NOT (", "a = 3", ")"),
        format!("a = {}", nested("1 - 2 * -(", "a", ")")),
        nested("a = (", "a = 3", ")"),
    ];
    let run = move || {
        for text in texts {
            let selector = parse(&text);
            assert!(!selector.matches(|_| Some("3")), "{text}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(64 * 20 * 1024).spawn(run);
    thread.unwrap().join().unwrap();
}

/// What is long without parentheses takes no stack.
#[test]
fn chains_do_not_recurse() {
    for text in [
        format!("{} a = 1", "NOT ".repeat(20_000)),
        format!("{} a = 1", "- ".repeat(20_000)),
        format!("a = 1{}", " - 1".repeat(20_000)),
        format!("a = 1{}", " AND a = 1".repeat(9_000)),
        format!("a = 1{}", " OR a = 1".repeat(9_000)),
        format!("a IN ('b'{})", ",'b'".repeat(9_000)),
    ] {
        let selector = parse(&text);
        assert_eq!(parse(&selector.to_string()), selector);
        assert!(!selector.matches(|_| None));
    }
}

#[test]
fn a_stretch_has_a_bound() {
    let stretch = |chars: usize| format!("a LIKE '%_{}%'", "x".repeat(chars - 1));
    let selector = parse(&stretch(STRETCH_CHARS_MAX));
    let value = format!("yx{}z", "x".repeat(STRETCH_CHARS_MAX));
    assert!(selector.matches(|_| Some(value.as_str())));
    assert!(!selector.matches(|_| value.get(..STRETCH_CHARS_MAX - 1)));
    refused(&stretch(STRETCH_CHARS_MAX + 1), 8, Expected::ShorterStretch);
    // Only a search needs it.
    let anchored = parse(&format!("a LIKE '{0}%{0}'", "_x".repeat(1_000)));
    assert!(anchored.matches(|_| Some(&*"xx".repeat(2_000).leak())));
    assert!(super::like::Pattern::new(vec![Sign::Many; 3]).is_some());
}

/// A pattern that makes others backtrack for ever takes no time here.
#[test]
fn like_does_not_blow_up() {
    let value = "a".repeat(10_000);
    let text = format!("a LIKE '{}b'", "%a_".repeat(3_000));
    assert!(!parse(&text).matches(|_| Some(&value)));
    let text = format!("a LIKE '{}'", "%a_".repeat(3_000));
    assert!(parse(&text).matches(|_| Some(&value)));
}
