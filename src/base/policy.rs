//! What holds for a queue beyond the plain: one table of settings, and the policies that state them by pattern of names.
//!
//! # Invariants
//! - Every setting stands once, in [`SETTINGS`], with its range and its default; configuration, API, journal and views
//!   go through that table.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination::{ANY, LEVEL_SEPARATOR, Wildcards, is_deep};

/// One setting: what it is called everywhere, and what it takes.
#[derive(Debug)]
pub struct SettingKey {
    /// Its name in the configuration and in the API, with its unit.
    pub name: &'static str,
    /// Its number in the journal; never used again.
    pub tag: u8,
    /// What a value looks like.
    pub form: SettingForm,
    put: fn(&mut Policy, &Setting),
    get: fn(&Policy) -> Setting,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingForm {
    /// A whole number, both ends included.
    Number(u64, u64),
    /// True or false.
    Flag,
    /// The name of a queue, in which `*` stands for the name of the queue that it is for; empty for none.
    QueueName,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Of [`SettingForm::Number`].
    Number(u64),
    /// Of [`SettingForm::Flag`].
    Flag(bool),
    /// Of a name or a choice.
    Text(Arc<str>),
}

impl SettingKey {
    /// The setting of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|key| key.name == name)
    }

    /// The setting of a number.
    pub fn tagged(tag: u8) -> Option<&'static Self> {
        SETTINGS.iter().find(|key| key.tag == tag)
    }

    /// What is allowed, for messages.
    pub fn allowed(&self) -> String {
        match self.form {
            SettingForm::Number(min, max) => format!("a whole number from {min} to {max}"),
            SettingForm::Flag => "true or false".to_owned(),
            SettingForm::QueueName => {
                "the name of a queue, in which * is the name of the queue it is for; empty for none"
                    .to_owned()
            }
            SettingForm::Choice(choices) => choices.join(", "),
        }
    }

    /// Whether a value has this setting's form and range.
    pub fn takes(&self, value: &Setting) -> bool {
        match (self.form, value) {
            (SettingForm::Number(min, max), Setting::Number(number)) => (min..=max).contains(number),
            (SettingForm::Flag, Setting::Flag(_)) => true,
            (SettingForm::QueueName, Setting::Text(text)) => is_target(text),
            (SettingForm::Choice(choices), Setting::Text(text)) => choices.contains(&&**text),
            _ => false,
        }
    }

    /// Reads a value from text. `None` if it does not have this setting's form and range.
    pub fn parse(&self, text: &str) -> Option<Setting> {
        let value = match self.form {
            SettingForm::Number(..) => Setting::Number(text.replace('_', "").parse().ok()?),
            SettingForm::Flag => Setting::Flag(text.parse().ok()?),
            SettingForm::QueueName | SettingForm::Choice(_) => Setting::Text(text.into()),
        };
        self.takes(&value).then_some(value)
    }

    /// The value that holds.
    pub fn of(&self, policy: &Policy) -> Setting {
        (self.get)(policy)
    }
}

/// A bare name: a prefix would be part of it, and a line end could not be sent to.
fn is_target(text: &str) -> bool {
    !text.starts_with('/') && !text.contains(char::is_control) && text.len() <= TARGET_BYTES_MAX
}

/// Of the name of a queue in a setting.
const TARGET_BYTES_MAX: usize = 1_024;

/// What happens to a message for which a queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It is refused.
    #[default]
    Refuse,
    /// The oldest go, counted.
    DropHead,
    /// The oldest go to the dead-letter queue.
    DeadLetter,
}

impl Overflow {
    const NAMES: [&str; 3] = ["refuse", "drop-head", "dead-letter"];

    fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::DropHead => "drop-head",
            Self::DeadLetter => "dead-letter",
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "drop-head" => Self::DropHead,
            "dead-letter" => Self::DeadLetter,
            _ => Self::Refuse,
        }
    }
}

/// How a field of [`Policy`] is a [`Setting`].
trait Field {
    fn put(&mut self, value: &Setting);
    fn get(&self) -> Setting;
}

impl Field for u64 {
    fn put(&mut self, value: &Setting) {
        if let Setting::Number(number) = value {
            *self = *number;
        }
    }

    fn get(&self) -> Setting {
        Setting::Number(*self)
    }
}

impl Field for bool {
    fn put(&mut self, value: &Setting) {
        if let Setting::Flag(flag) = value {
            *self = *flag;
        }
    }

    fn get(&self) -> Setting {
        Setting::Flag(*self)
    }
}

impl Field for Arc<str> {
    fn put(&mut self, value: &Setting) {
        if let Setting::Text(text) = value {
            *self = Arc::clone(text);
        }
    }

    fn get(&self) -> Setting {
        Setting::Text(Arc::clone(self))
    }
}

impl Field for Overflow {
    fn put(&mut self, value: &Setting) {
        if let Setting::Text(text) = value {
            *self = Self::named(text);
        }
    }

    fn get(&self) -> Setting {
        Setting::Text(self.name().into())
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $tag:literal $name:ident: $type:ty = $default:expr, $form:expr;)*) => {
        /// What holds for one queue.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Policy {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for Policy {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// Every setting, in the order in which they are shown.
        pub static SETTINGS: &[SettingKey] = &[$(SettingKey {
            name: stringify!($name),
            tag: $tag,
            form: $form,
            put: |policy, value| policy.$name.put(value),
            get: |policy| policy.$name.get(),
        }),*];
    };
}

const YEAR_MS: u64 = 366 * 24 * 60 * 60 * 1000;
const COUNT_MAX: u64 = 1_000_000_000;
const BYTES_MAX: u64 = 1 << 50;

settings! {
    /// The failure of this number moves a message to the dead-letter queue.
    1 deliveries_failed_max: u64 = 10, SettingForm::Number(1, COUNT_MAX);
    /// How long a message rests after its first failure.
    2 redelivery_delay_ms: u64 = 0, SettingForm::Number(0, YEAR_MS);
    /// The rest after each further failure, in percent of the one before.
    3 redelivery_delay_percent: u64 = 100, SettingForm::Number(100, 10_000);
    /// No rest is longer.
    4 redelivery_delay_ms_max: u64 = 3_600_000, SettingForm::Number(0, YEAR_MS);
    /// Whether the end of a connection, or of a subscription, is a failure of what it held.
    5 count_lost_sessions: bool = false, SettingForm::Flag;
    /// Where messages go that failed for good; empty: they end, counted.
    6 dead_letter_queue: Arc<str> = "DLQ.*".into(), SettingForm::QueueName;
    /// A delivery that is unsettled for so long is a failure; 0: it may take any time.
    7 ack_timeout_ms: u64 = 0, SettingForm::Number(0, YEAR_MS);
    /// A message expires so long after it was accepted, unless it says so itself; 0: it does not.
    8 message_ttl_ms: u64 = 0, SettingForm::Number(0, 100 * YEAR_MS);
    /// Where expired messages go; empty: they end, counted.
    9 expiry_queue: Arc<str> = "".into(), SettingForm::QueueName;
    /// Messages that a queue holds; 0: any number.
    10 message_count_max: u64 = 0, SettingForm::Number(0, COUNT_MAX);
    /// Bytes of the messages that a queue holds; 0: any number.
    11 message_bytes_max: u64 = 0, SettingForm::Number(0, BYTES_MAX);
    /// What happens beyond either.
    12 overflow: Overflow = Overflow::Refuse, SettingForm::Choice(&Overflow::NAMES);
    /// A message whose deduplication id the queue has seen within this time is not stored again.
    13 dedup_window_ms: u64 = 600_000, SettingForm::Number(0, YEAR_MS);
    /// Ids that a queue remembers; the oldest are forgotten first. 0: none.
    14 dedup_count_max: u64 = 100_000, SettingForm::Number(0, 100_000_000);
}

/// What one policy, or one declaration of a queue, states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings(BTreeMap<u8, Setting>);

impl Settings {
    /// States a setting. False, and nothing is stated, if it does not take the value.
    pub fn state(&mut self, key: &SettingKey, value: Setting) -> bool {
        let takes = key.takes(&value);
        if takes {
            self.0.insert(key.tag, value);
        }
        takes
    }

    /// What is stated, in the order of tags.
    pub fn iter(&self) -> impl Iterator<Item = (&'static SettingKey, &Setting)> {
        self.0
            .iter()
            .filter_map(|(tag, value)| SettingKey::tagged(*tag).map(|key| (key, value)))
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets what is stated hold.
    pub fn apply(&self, policy: &mut Policy) {
        for (key, value) in self.iter() {
            (key.put)(policy, value);
        }
    }
}

/// Settings by pattern of names: of those whose pattern a name matches, each setting is taken from the most specific that
/// states it.
///
/// Of two patterns, compared level by level, the more specific is the one that first has a level with a name where the other
/// has `*` or any number of levels, or `*` where the other has any number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// What holds where no pattern says otherwise.
    default: Arc<Policy>,
    /// The least specific first.
    by_rank: BTreeMap<(Reverse<Vec<u8>>, Arc<str>), Settings>,
}

impl Policies {
    /// With no patterns.
    pub fn new(default: Policy) -> Self {
        Self {
            default: Arc::new(default),
            by_rank: BTreeMap::new(),
        }
    }

    /// Whether this is a pattern of names: see [`Wildcards`]. One without wildcards is one name.
    pub fn is_pattern(pattern: &str) -> bool {
        !pattern.is_empty() && Wildcards::of(pattern) != Wildcards::Misplaced
    }

    /// Whether two patterns mean the same names.
    pub fn is_same(one: &str, other: &str) -> bool {
        normal(one) == normal(other)
    }

    /// Sets what a pattern states, instead of what it stated before.
    pub fn insert(&mut self, pattern: &str, settings: Settings) {
        self.remove(pattern);
        self.by_rank
            .insert((Reverse(rank(pattern)), pattern.into()), settings);
    }

    /// Whether the pattern stated something.
    pub fn remove(&mut self, pattern: &str) -> bool {
        let count = self.by_rank.len();
        self.by_rank.retain(|(_, of), _| !Self::is_same(of, pattern));
        self.by_rank.len() < count
    }

    /// Patterns and what they state, the most specific first.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Settings)> {
        self.by_rank
            .iter()
            .rev()
            .map(|((_, pattern), settings)| (pattern, settings))
    }

    /// What holds for a queue of this name, with what it declares itself.
    pub fn of(&self, name: &str, declared: &Settings) -> Arc<Policy> {
        let stated = self
            .by_rank
            .iter()
            .filter(|((_, pattern), _)| matches(pattern, name));
        let mut stated = stated.map(|(_, settings)| settings).peekable();
        if stated.peek().is_none() && declared.is_empty() {
            return Arc::clone(&self.default);
        }
        let mut policy = Policy::clone(&self.default);
        stated
            .chain([declared])
            .for_each(|settings| settings.apply(&mut policy));
        Arc::new(policy)
    }
}

impl Policy {
    /// The name of the queue that a setting names, for a queue; `None` if it names none.
    pub fn target(setting: &str, queue: &str) -> Option<String> {
        (!setting.is_empty()).then(|| setting.replace(ANY, queue))
    }
}

/// What a pattern of names of queues is, for messages.
pub const PATTERN_FORM: &str = "the name of a queue, or a pattern of names: levels between dots, * for one, > # or ** at the end for all below";

/// A pattern with each way to write any number of levels as one.
fn normal(pattern: &str) -> Vec<&str> {
    let levels = pattern.split(LEVEL_SEPARATOR);
    levels
        .map(|level| if is_deep(level) { ">" } else { level })
        .collect()
}

/// Level by level: 0 a name, 1 any one level, 2 any number. The lower, the more specific.
fn rank(pattern: &str) -> Vec<u8> {
    let levels = pattern.split(LEVEL_SEPARATOR);
    levels
        .map(|level| match level {
            level if is_deep(level) => 2,
            ANY => 1,
            _ => 0,
        })
        .collect()
}

/// Whether a pattern means a name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut levels = name.split(LEVEL_SEPARATOR);
    for wanted in pattern.split(LEVEL_SEPARATOR) {
        if is_deep(wanted) {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == ANY || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(list: &[(&str, u64)]) -> Settings {
        let mut settings = Settings::default();
        for (name, number) in list {
            assert!(settings.state(SettingKey::named(name).unwrap(), Setting::Number(*number)));
        }
        settings
    }

    #[test]
    fn each_setting_is_that_of_the_most_specific_pattern() {
        let mut policies = Policies::new(Policy::default());
        policies.insert(
            "orders.#",
            stated(&[
                ("ack_timeout_ms", 1),
                ("message_ttl_ms", 1),
                ("message_count_max", 1),
            ]),
        );
        policies.insert(
            "orders.*",
            stated(&[("ack_timeout_ms", 2), ("message_ttl_ms", 2)]),
        );
        policies.insert("orders.eu", stated(&[("ack_timeout_ms", 3)]));
        policies.insert("*.eu", stated(&[("ack_timeout_ms", 4), ("message_bytes_max", 4)]));
        policies.insert(">", stated(&[("dedup_window_ms", 5)]));
        let of = |name: &str| {
            let policy = policies.of(name, &Settings::default());
            let Policy {
                ack_timeout_ms,
                message_ttl_ms,
                message_count_max,
                message_bytes_max,
                dedup_window_ms,
                ..
            } = *policy;
            [
                ack_timeout_ms,
                message_ttl_ms,
                message_count_max,
                message_bytes_max,
                dedup_window_ms,
            ]
        };
        assert_eq!(of("orders.eu"), [3, 2, 1, 4, 5]);
        assert_eq!(of("orders.us"), [2, 2, 1, 0, 5]);
        assert_eq!(of("orders"), [1, 1, 1, 0, 5]);
        assert_eq!(of("orders.us.x"), [1, 1, 1, 0, 5]);
        assert_eq!(of("bills.eu"), [4, 0, 0, 4, 5]);
        assert_eq!(of("order"), [0, 0, 0, 0, 5]);
        let declared = stated(&[("message_count_max", 9)]);
        assert_eq!(policies.of("orders.eu", &declared).message_count_max, 9);
        let order: Vec<&str> = policies.iter().map(|(pattern, _)| &**pattern).collect();
        assert_eq!(order, ["orders.eu", "orders.*", "orders.#", "*.eu", ">"]);
    }

    #[test]
    fn a_pattern_has_one_statement_however_it_is_written() {
        let mut policies = Policies::new(Policy::default());
        policies.insert("a.>", stated(&[("ack_timeout_ms", 1)]));
        policies.insert("a.**", stated(&[("message_ttl_ms", 1)]));
        assert_eq!(policies.iter().count(), 1);
        let none = Settings::default();
        assert_eq!(policies.of("a.b", &none).ack_timeout_ms, 0);
        assert!(policies.remove("a.#"));
        assert!(!policies.remove("a.#"));
        assert!(Arc::ptr_eq(&policies.of("a.b", &none), &policies.of("c", &none)));
    }

    #[test]
    fn a_value_out_of_its_range_is_not_stated() {
        let mut settings = Settings::default();
        let cases: &[(&str, &str, bool)] = &[
            ("deliveries_failed_max", "0", false),
            ("deliveries_failed_max", "1", true),
            ("deliveries_failed_max", "1_000_000_000", true),
            ("deliveries_failed_max", "1_000_000_001", false),
            ("redelivery_delay_percent", "99", false),
            ("count_lost_sessions", "1", false),
            ("count_lost_sessions", "true", true),
            ("dead_letter_queue", "", true),
            ("dead_letter_queue", "/queue/x", false),
            ("dead_letter_queue", "a\nb", false),
            ("overflow", "drop-head", true),
            ("overflow", "drop", false),
        ];
        for (name, text, valid) in cases {
            let key = SettingKey::named(name).unwrap();
            assert_eq!(key.parse(text).is_some(), *valid, "{name} = {text}");
            if let Some(value) = key.parse(text) {
                assert!(settings.state(key, value));
            }
        }
        assert!(!settings.state(SettingKey::named("overflow").unwrap(), Setting::Number(1)));
        let mut policy = Policy::default();
        settings.apply(&mut policy);
        assert_eq!(
            (policy.overflow, policy.count_lost_sessions),
            (Overflow::DropHead, true)
        );
        for key in SETTINGS {
            assert!(key.takes(&key.of(&Policy::default())), "{}", key.name);
            assert!(
                std::ptr::eq(SettingKey::tagged(key.tag).unwrap(), key),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn a_target_may_name_its_queue() {
        assert_eq!(Policy::target("DLQ.*", "a.b").as_deref(), Some("DLQ.a.b"));
        assert_eq!(Policy::target("dead", "a.b").as_deref(), Some("dead"));
        assert_eq!(Policy::target("", "a.b"), None);
    }
}
