//! The table of keys: name, form, range, and how to reach the field.

use std::fmt;
use std::path::PathBuf;

use toml::de::DeValue;

use super::{ADDRESS_FORM, Config, LogFormat, LogLevel, parse_address};
use crate::base::{Limits, Setting, TokenKey};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its table in the file.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    form: Form,
    /// Only of a value of the key's form and range.
    set: fn(&mut Config, &Value) -> bool,
    get: fn(&Config) -> Value,
}

/// What a value looks like.
#[derive(Debug)]
enum Form {
    /// A whole number, both ends included.
    Number(u64, u64),
    Flag,
    Choice(&'static [&'static str]),
    Path,
    /// The path of a file, or nothing.
    File,
    /// Any text, or nothing.
    Text,
    /// A list of keys for tokens.
    TokenKeys,
    Addresses,
    /// One address, or nothing.
    Address,
}

/// A value as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// true or false.
    Flag(bool),
    /// A word, path or address.
    Text(String),
    /// Several of them.
    List(Vec<String>),
}

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| toml::Value::String(text.to_owned());
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(one) => write!(f, "{}", text(one)),
            Self::List(list) => write!(
                f,
                "{}",
                toml::Value::Array(list.iter().map(|one| text(one)).collect())
            ),
        }
    }
}

impl Value {
    /// `None` for what no key takes (floats, dates, tables, negative numbers).
    pub(super) fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
        match value {
            DeValue::Integer(number) => {
                let digits = number.as_str().trim_start_matches('+');
                u64::from_str_radix(digits, number.radix()).ok().map(Self::Number)
            }
            DeValue::Boolean(flag) => Some(Self::Flag(*flag)),
            DeValue::String(_) => text(value).map(Self::Text),
            DeValue::Array(items) => items
                .iter()
                .map(|item| text(item.get_ref()))
                .collect::<Option<_>>()
                .map(Self::List),
            _ => None,
        }
    }

    /// As the value of a policy's setting, which no list is.
    pub(super) fn into_setting(self) -> Option<Setting> {
        match self {
            Self::Number(number) => Some(Setting::Number(number)),
            Self::Flag(flag) => Some(Setting::Flag(flag)),
            Self::Text(text) => Some(Setting::Text(text.into())),
            Self::List(_) => None,
        }
    }
}

impl Key {
    /// Its section and its name, as messages have it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Its value in a configuration.
    pub fn get(&self, config: &Config) -> Value {
        (self.get)(config)
    }

    /// The name of its environment variable. Keys of `[server]` go without their section.
    pub fn variable(&self) -> String {
        let section = match self.section {
            "server" => String::new(),
            section => format!("{section}_"),
        };
        format!("STEADFAST_{section}{}", self.name).to_uppercase()
    }

    /// What is allowed, for messages.
    pub fn allowed(&self) -> String {
        match &self.form {
            Form::Number(min, max) => format!("a whole number from {min} to {max}"),
            Form::Flag => "true or false".to_owned(),
            Form::Choice(choices) => choices.join(", "),
            Form::Path => "the path of a folder".to_owned(),
            Form::File => "the path of a file, or nothing".to_owned(),
            Form::Text => "a text, or nothing".to_owned(),
            Form::TokenKeys => format!("a list of {}", TokenKey::FORM),
            Form::Addresses => format!("a list of {ADDRESS_FORM}"),
            Form::Address => format!("{ADDRESS_FORM}, or nothing"),
        }
    }

    /// Both ends of the range of a number.
    #[cfg(test)]
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        match self.form {
            Form::Number(min, max) => Some((min, max)),
            _ => None,
        }
    }

    /// Reads the text of an environment variable. `None` if it does not have the key's form.
    pub(super) fn parse(&self, text: &str) -> Option<Value> {
        match self.form {
            Form::Number(..) => text.replace('_', "").parse().ok().map(Value::Number),
            Form::Flag => text.parse().ok().map(Value::Flag),
            Form::Choice(_) | Form::Path | Form::File | Form::Text | Form::Address => {
                Some(Value::Text(text.to_owned()))
            }
            Form::TokenKeys if text.is_empty() => Some(Value::List(Vec::new())),
            Form::Addresses | Form::TokenKeys => Some(Value::List(
                text.split(',').map(|item| item.trim().to_owned()).collect(),
            )),
        }
    }

    /// Sets the field. False, and nothing is set, if the value does not have the key's form and range.
    pub(super) fn set(&self, config: &mut Config, value: &Value) -> bool {
        let fits = match (&self.form, value) {
            (Form::Number(min, max), Value::Number(number)) => (min..=max).contains(&number),
            (Form::Flag, Value::Flag(_)) => true,
            (Form::Choice(choices), Value::Text(text)) => choices.contains(&text.as_str()),
            (Form::Path, Value::Text(text)) => !text.is_empty(),
            (Form::Address | Form::File | Form::Text, Value::Text(_)) => true,
            (Form::TokenKeys, Value::List(_)) => true,
            (Form::Addresses, Value::List(list)) => !list.is_empty(),
            _ => false,
        };
        fits && (self.set)(config, value)
    }
}

/// Number and flag keys whose name is that of their field.
macro_rules! key {
    ($section:ident . $name:ident [flag]) => {
        Key {
            section: stringify!($section),
            name: stringify!($name),
            form: Form::Flag,
            set: |config, value| match value {
                Value::Flag(flag) => {
                    config.$section.$name = *flag;
                    true
                }
                _ => false,
            },
            get: |config| Value::Flag(config.$section.$name),
        }
    };
    ($section:ident . $name:ident [$min:expr, $max:expr]) => {
        Key {
            section: stringify!($section),
            name: stringify!($name),
            form: Form::Number($min, $max),
            set: |config, value| match value {
                Value::Number(number) => (*number)
                    .try_into()
                    .map(|number| config.$section.$name = number)
                    .is_ok(),
                _ => false,
            },
            get: |config| Value::Number(config.$section.$name as u64),
        }
    };
}

/// The keys of `[limits]`, and a proof that no field of [`Limits`] is without one.
macro_rules! limits {
    ($($name:ident $range:tt,)*) => {
        const LIMITS: &[Key] = &[$(key!(limits.$name $range)),*];
        const _: fn(Limits) = |Limits { $($name: _),* }| {};
    };
}

/// Every key, in the order of the sample.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    FIRST.iter().chain(LIMITS)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const COUNT_MAX: u64 = 1_000_000_000;

const FIRST: &[Key] = &[
    Key {
        section: "server",
        name: "listen",
        form: Form::Addresses,
        set: |config, value| {
            let Value::List(list) = value else { return false };
            let addresses: Option<Vec<_>> = list.iter().map(|text| parse_address(text)).collect();
            addresses
                .map(|addresses| config.server.listen = addresses)
                .is_some()
        },
        get: |config| Value::List(config.server.listen.iter().map(ToString::to_string).collect()),
    },
    Key {
        section: "server",
        name: "data_dir",
        form: Form::Path,
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            config.server.data_dir = PathBuf::from(text);
            true
        },
        get: |config| Value::Text(config.server.data_dir.to_string_lossy().into_owned()),
    },
    Key {
        section: "server",
        name: "metrics_listen",
        form: Form::Address,
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            if text.is_empty() {
                config.server.metrics_listen = None;
                return true;
            }
            let address = parse_address(text);
            config.server.metrics_listen = address;
            address.is_some()
        },
        get: |config| {
            let address = config.server.metrics_listen;
            Value::Text(address.map_or_else(String::new, |address| address.to_string()))
        },
    },
    key!(server.insecure_allow_anonymous[flag]),
    key!(server.shutdown_ms_max[1, DAY_MS]),
    key!(server.worker_thread_count[0, 1024]),
    Key {
        section: "security",
        name: "users_file",
        form: Form::File,
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            config.security.users_file = (!text.is_empty()).then(|| PathBuf::from(text));
            true
        },
        get: |config| {
            let file = config.security.users_file.as_deref();
            Value::Text(file.map_or_else(String::new, |file| file.to_string_lossy().into_owned()))
        },
    },
    Key {
        section: "security",
        name: "jwt_keys",
        form: Form::TokenKeys,
        set: |config, value| {
            let Value::List(list) = value else { return false };
            let keys: Option<Vec<_>> = list.iter().map(|text| TokenKey::parse(text)).collect();
            keys.map(|keys| config.security.jwt_keys = keys).is_some()
        },
        get: |config| Value::List(config.security.jwt_keys.iter().map(ToString::to_string).collect()),
    },
    Key {
        section: "security",
        name: "jwt_audience",
        form: Form::Text,
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            config.security.jwt_audience = text.clone();
            true
        },
        get: |config| Value::Text(config.security.jwt_audience.clone()),
    },
    Key {
        section: "security",
        name: "jwt_issuer",
        form: Form::Text,
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            config.security.jwt_issuer = text.clone();
            true
        },
        get: |config| Value::Text(config.security.jwt_issuer.clone()),
    },
    Key {
        section: "log",
        name: "format",
        form: Form::Choice(&LogFormat::NAMES),
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            LogFormat::named(text)
                .map(|format| config.log.format = format)
                .is_some()
        },
        get: |config| Value::Text(config.log.format.name().to_owned()),
    },
    Key {
        section: "log",
        name: "level",
        form: Form::Choice(&LogLevel::NAMES),
        set: |config, value| {
            let Value::Text(text) = value else { return false };
            LogLevel::named(text)
                .map(|level| config.log.level = level)
                .is_some()
        },
        get: |config| Value::Text(config.log.level.name().to_owned()),
    },
    key!(heart_beat.interval_ms_min[1, DAY_MS]),
    key!(heart_beat.margin_percent[101, 1000]),
    key!(store.cache_bytes[MIB, TIB]),
];

limits! {
    header_line_bytes_max[256, MIB],
    header_block_bytes_max[256, 16 * MIB],
    header_count_max[16, 100_000],
    body_bytes_max[1, GIB],
    login_bytes_max[256, 16 * MIB],
    login_ms_max[1, DAY_MS],
    login_check_count_max[1, 256],
    login_failure_count_max[1, 1_000_000],
    login_failure_window_ms[1, DAY_MS],
    login_delay_ms[0, DAY_MS],
    login_delay_ms_max[0, DAY_MS],
    login_address_count_max[1, COUNT_MAX],
    frame_bytes_per_second_min[0, GIB],
    frame_progress_window_ms[1, DAY_MS],
    subscription_count_max[1, COUNT_MAX],
    temporary_queue_count_max[0, COUNT_MAX],
    durable_subscription_count_max[0, COUNT_MAX],
    fan_out_count_max[1, COUNT_MAX],
    dedup_id_bytes_max[1, 1_000],
    selector_bytes_max[1, 65_536],
    selector_depth_max[1, 64],
    selector_count_max[0, COUNT_MAX],
    group_id_bytes_max[1, 1_000],
    group_count_max[1, COUNT_MAX],
    schedule_count_max[0, COUNT_MAX],
    schedule_period_ms_min[1, DAY_MS],
    dedup_bytes_max[MIB, TIB],
    transaction_count_max[1, COUNT_MAX],
    staged_frame_count_max[1, COUNT_MAX],
    staged_bytes_max[1, TIB],
    unread_output_bytes_max[KIB, TIB],
    unread_output_ms_max[1, DAY_MS],
    linger_ms_max[1, DAY_MS],
    prefetch_count[1, COUNT_MAX],
    prefetch_count_max[1, COUNT_MAX],
    prefetch_bytes_max[1, TIB],
    topic_backlog_count_max[1, COUNT_MAX],
    topic_backlog_bytes_max[1, TIB],
    topic_drop_oldest[flag],
    reason_bytes_max[0, 10 * KIB],
    deliveries_failed_max[1, COUNT_MAX],
    stuck_subscription_ms[1, DAY_MS],
    admin_act_count_max[1, 10_000_000],
    policy_count_max[0, COUNT_MAX],
    declared_queue_count_max[0, COUNT_MAX],
    metrics_queue_count_max[0, 1_000_000],
    connection_count_max[1, COUNT_MAX],
    address_connection_count_max[0, COUNT_MAX],
    silence_ms_max[0, DAY_MS],
    receiving_bytes_max[1, TIB],
    memory_bytes_max[1, TIB],
    disk_free_bytes_min[0, TIB],
    commit_bytes_max[KIB, GIB],
    unflushed_bytes_max[KIB, TIB],
    compaction_garbage_bytes_min[KIB, TIB],
    compaction_chunk_count_slack[1, COUNT_MAX],
    compaction_waste_bytes_min[KIB, TIB],
    body_cache_bytes_max[MIB, TIB],
}
