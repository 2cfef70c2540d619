//! Configuration: defaults, then a TOML file, then `STEADFAST_*` environment variables, then flags; the later wins.
//!
//! Every key stands once, in [`keys`], with its range; the file and the environment are read through that table, and
//! `config/steadfast.toml` is compared with it by a test.
//!
//! # Invariants
//! - A key or variable that is not in the table is refused, as is a value out of its range: nothing is ignored.
//! - Reading goes on behind a mistake: all of them are told at once.
//!
//! # Not here
//! Reading the environment of the process: `cli` hands it over. Flags: `cli` parses them into [`Overrides`].

mod error;
mod keys;
mod listener;
mod origin;
mod reload;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use error::{ConfigError, ConfigErrors};
pub use keys::{Key, Value, keys};
pub use listener::{Address, CertificateName, ClientCertificate, Listener, Tls, WebSocket};
pub use origin::{Origin, Origins};
pub use reload::Changes;

use crate::base::{Limits, Method, PATTERN_FORM, Policies, Rules, SettingKey, Settings, TokenKey};

/// The commented list of every key with its default.
pub const SAMPLE: &str = include_str!("../../config/steadfast.toml");

/// What every variable of ours begins with.
const PREFIX: &str = "STEADFAST_";

/// The variable that names the file; no key.
const FILE_VARIABLE: &str = "STEADFAST_CONFIG";

/// The variable with the passcode of `send`, `receive` and others that connect: no key of the broker.
pub const PASSCODE_VARIABLE: &str = "STEADFAST_PASSCODE";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[security]`
    pub security: Security,
    /// `[log]`
    pub log: Log,
    /// `[heart_beat]`
    pub heart_beat: HeartBeat,
    /// `[store]`
    pub store: StoreConfig,
    /// `[limits]`
    pub limits: Limits,
    /// `[[listener]]`: listeners beside those of `server.listen`.
    pub listeners: Vec<Listener>,
    /// `[[policy]]`: patterns of the names of queues, and what each states.
    pub policies: Vec<(String, Settings)>,
    /// `[[rule]]`: who may do what.
    pub rules: Rules,
}

/// The sections that are lists of tables, and the key that says what a policy is for.
const LISTENER: &str = "listener";
const POLICY: &str = "policy";
const RULE: &str = "rule";
const PATTERN: &str = "pattern";

/// Where the broker listens and stores, and how it stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses of listeners with the default dialect; at least one, unless there are others.
    pub listen: Vec<SocketAddr>,
    /// An address for metrics and health; none, if they are only on the API's socket.
    pub metrics_listen: Option<SocketAddr>,
    /// The data folder; made if it is missing.
    pub data_dir: PathBuf,
    /// A stop takes at most about this long, then connections are cut.
    pub shutdown_ms_max: u64,
    /// Threads for connections; 0 = one for each core.
    pub worker_thread_count: usize,
    /// Addresses that are not loopback are allowed although anyone may log in.
    pub insecure_allow_anonymous: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 61613))],
            metrics_listen: None,
            data_dir: PathBuf::from("./data"),
            shutdown_ms_max: 5_000,
            worker_thread_count: 0,
            insecure_allow_anonymous: false,
        }
    }
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// The users file; none = [`USERS_FILE`] in the data folder, if that is there.
    pub users_file: Option<PathBuf>,
    /// Keys that JWTs may be signed with.
    pub jwt_keys: Vec<TokenKey>,
    /// What `aud` of a JWT has to contain; empty = anything.
    pub jwt_audience: String,
    /// What `iss` of a JWT has to be; empty = anything.
    pub jwt_issuer: String,
}

/// The users file's name in the data folder.
pub const USERS_FILE: &str = "users.toml";

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// What is left out.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object on a line.
    Json,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Faults only.
    Error,
    /// And what someone should look at.
    Warn,
    /// And what happens to connections.
    #[default]
    Info,
    /// And details.
    Debug,
    /// And everything.
    Trace,
}

impl LogFormat {
    /// The text of every value.
    pub const NAMES: [&str; 2] = ["text", "json"];

    /// The value of a text.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl LogLevel {
    /// The text of every value.
    pub const NAMES: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

    /// The value of a text.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "error" => Some(Self::Error),
            "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }

    /// Its text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Heart-beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartBeat {
    /// The shortest interval we guarantee and ask for, either way.
    pub interval_ms_min: u64,
    /// A peer is dead after its agreed interval times this, in percent.
    pub margin_percent: u64,
}

impl Default for HeartBeat {
    fn default() -> Self {
        Self {
            interval_ms_min: 100,
            margin_percent: 200,
        }
    }
}

/// The store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Pages that the store's engine keeps in memory, by its own count.
    pub cache_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 32 * 1024 * 1024,
        }
    }
}

/// What flags say; each beats every other source.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`; empty = not given.
    pub listen: Vec<SocketAddr>,
    /// `--metrics-listen`
    pub metrics_listen: Option<SocketAddr>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--log-level`
    pub log_level: Option<LogLevel>,
    /// `--insecure-allow-anonymous`
    pub insecure_allow_anonymous: bool,
}

impl Overrides {
    /// The keys that flags state, each with its flag.
    fn given(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [
            ("server.data_dir", "--data-dir", self.data_dir.is_some()),
            ("server.listen", "--listen", !self.listen.is_empty()),
            (
                "server.metrics_listen",
                "--metrics-listen",
                self.metrics_listen.is_some(),
            ),
            ("log.format", "--log-format", self.log_format.is_some()),
            ("log.level", "--log-level", self.log_level.is_some()),
            (
                "server.insecure_allow_anonymous",
                "--insecure-allow-anonymous",
                self.insecure_allow_anonymous,
            ),
        ]
        .into_iter()
        .filter_map(|(key, flag, given)| given.then_some((key, flag)))
    }
}

impl Config {
    /// Every listener: those of `server.listen`, then the others.
    pub fn every_listener(&self) -> impl Iterator<Item = Listener> {
        let short = self.server.listen.iter().map(|address| Listener::from(*address));
        short.chain(self.listeners.iter().cloned())
    }

    /// The users file.
    pub fn users_file(&self) -> PathBuf {
        let named = self.security.users_file.clone();
        named.unwrap_or_else(|| self.server.data_dir.join(USERS_FILE))
    }

    /// An address that others can reach, and where anybody may log in, must be asked for by name. `open` = there are no users,
    /// and no keys of tokens.
    pub fn refuse_exposed(&self, open: bool) -> Result<(), ConfigError> {
        let mut addresses = self
            .every_listener()
            .filter(|listener| listener.authentication.take(Method::None, open))
            .filter_map(|listener| listener.address.tcp());
        match addresses.find(|address| !address.ip().to_canonical().is_loopback()) {
            Some(address) if !self.server.insecure_allow_anonymous => Err(ConfigError::Exposed { address }),
            _ => Ok(()),
        }
    }

    /// Reads every source in its order and checks the whole. Fails with every mistake in them.
    pub fn load(
        overrides: Overrides,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let (loaded, mistakes) = Loaded::read(overrides, environment);
        mistakes.none()?;
        Ok(loaded.config)
    }
}

/// A configuration, and where each value of it was written.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values; where one was refused, what would hold without it.
    pub config: Config,
    /// Their places.
    pub origins: Origins,
}

impl Loaded {
    /// Reads every source in its order and checks the whole: what could be read, and every mistake.
    pub fn read(
        overrides: Overrides,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Self, ConfigErrors) {
        let mut reader = Reader::default();
        reader.read(overrides, environment);
        reader.check();
        reader.finish()
    }

    /// What of it is wrong only for a broker that is to listen there, with its place. `open` as in [`Config::refuse_exposed`].
    pub fn exposed(&self, open: bool) -> Option<ConfigError> {
        let exposed = self.config.refuse_exposed(open).err()?;
        let at = match &exposed {
            ConfigError::Exposed { address } => self.listener_origin(*address),
            _ => Origin::Default,
        };
        Some(exposed.at(at))
    }

    /// Where a listener was named.
    fn listener_origin(&self, address: SocketAddr) -> Origin {
        let mut listeners = self.config.listeners.iter().zip(&self.origins.listeners);
        let found = listeners.find(|(listener, _)| listener.address.tcp() == Some(address));
        match found {
            Some((_, origin)) if !self.config.server.listen.contains(&address) => origin.clone(),
            _ => self.origins.named("server.listen").clone(),
        }
    }
}

/// Reads sources one after another, and gathers what is wrong with them.
#[derive(Debug, Default)]
struct Reader {
    config: Config,
    origins: Origins,
    mistakes: Vec<ConfigError>,
}

impl Reader {
    fn finish(self) -> (Loaded, ConfigErrors) {
        let loaded = Loaded {
            config: self.config,
            origins: self.origins,
        };
        (loaded, ConfigErrors::new(self.mistakes))
    }

    fn read(&mut self, overrides: Overrides, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut file = None;
        let mut variables = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == FILE_VARIABLE {
                file = Some(PathBuf::from(value));
            } else if name != PASSCODE_VARIABLE {
                variables.push((name.to_owned(), value));
            }
        }
        variables.sort();

        // The default address is that of a broker of which nothing else is said.
        let default = std::mem::take(&mut self.config.server.listen);
        if let Some(path) = overrides.file.clone().or(file) {
            self.read_file(&path);
        }
        for (name, value) in variables {
            self.read_variable(name, value);
        }
        for (key, flag) in overrides.given() {
            self.origins.note_flag(key, flag);
        }
        let config = &mut self.config;
        let server = &mut config.server;
        if let Some(data_dir) = overrides.data_dir {
            server.data_dir = data_dir;
        }
        if !overrides.listen.is_empty() {
            server.listen = overrides.listen;
        }
        // Listeners that are refused are listeners all the same.
        let told = self.origins.listener_count > 0 || self.origins.has("server.listen");
        if server.listen.is_empty() && !told {
            server.listen = default;
        }
        if overrides.metrics_listen.is_some() {
            server.metrics_listen = overrides.metrics_listen;
        }
        server.insecure_allow_anonymous |= overrides.insecure_allow_anonymous;
        config.log.format = overrides.log_format.unwrap_or(config.log.format);
        config.log.level = overrides.log_level.unwrap_or(config.log.level);
    }

    fn read_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.read_text(path, &text),
            Err(source) => self.mistakes.push(ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads a file's text; `path` is for messages.
    fn read_text(&mut self, path: &Path, text: &str) {
        let at = |byte: usize| Origin::File {
            path: path.to_owned(),
            line: text.as_bytes().iter().take(byte).filter(|&&b| b == b'\n').count() + 1,
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut broken: Vec<Origin> = Vec::new();
        for error in errors {
            let at = at(error.span().map_or(0, |span| span.start));
            if !broken.contains(&at) {
                let message = error.message().replace('\n', ", ");
                broken.push(at.clone());
                self.mistakes.push(ConfigError::Syntax { at, message });
            }
        }
        let behind = self.mistakes.len();
        for (section, table) in document.get_ref() {
            let section_at = at(section.span().start);
            let section = section.get_ref();
            if let Some(section) = [LISTENER, POLICY, RULE].into_iter().find(|name| section == name) {
                self.read_list(text, section, table, section_at, &at);
                continue;
            }
            if !keys().any(|key| key.section == section) {
                self.mistakes.push(ConfigError::UnknownSection {
                    at: section_at,
                    section: section.to_string(),
                });
                continue;
            }
            let DeValue::Table(table) = table.get_ref() else {
                self.mistakes.push(ConfigError::NoSection {
                    at: section_at,
                    section: section.to_string(),
                });
                continue;
            };
            for (name, value) in table {
                let Some(key) = keys().find(|key| key.section == section && key.name == name.get_ref())
                else {
                    self.mistakes.push(ConfigError::UnknownKey {
                        at: at(name.span().start),
                        section: section.to_string(),
                        name: name.get_ref().to_string(),
                    });
                    continue;
                };
                let value_at = at(value.span().start);
                self.origins.note(key, value_at.clone());
                if Value::from_toml(value.get_ref())
                    .filter(|value| key.set(&mut self.config, value))
                    .is_none()
                {
                    let found = text.get(value.span()).unwrap_or_default();
                    self.mistakes.push(ConfigError::bad_value(value_at, key, found));
                }
            }
        }
        // What is read of a line that is no TOML is not what was meant.
        let found = self.mistakes.split_off(behind);
        let meant = |error: &ConfigError| !error.place().is_some_and(|at| broken.contains(at));
        self.mistakes.extend(found.into_iter().filter(meant));
    }

    /// Reads a section that is a list of tables.
    fn read_list(
        &mut self,
        text: &str,
        section: &'static str,
        list: &Spanned<DeValue<'_>>,
        section_at: Origin,
        at: &impl Fn(usize) -> Origin,
    ) {
        let DeValue::Array(tables) = list.get_ref() else {
            self.mistakes.push(ConfigError::NoList {
                at: section_at,
                section,
            });
            return;
        };
        for table in tables {
            let begin = at(table.span().start);
            let DeValue::Table(table) = table.get_ref() else {
                self.mistakes.push(ConfigError::NoList { at: begin, section });
                continue;
            };
            match section {
                LISTENER => {
                    self.origins.listener_count += 1;
                    let read = listener::read(text, table, begin.clone(), at, &mut self.mistakes);
                    if let Some(listener) = read {
                        self.config.listeners.push(listener);
                        self.origins.listeners.push(begin);
                    }
                }
                RULE => {
                    if let Some(rule) = rule::read(text, table, &begin, at, &mut self.mistakes) {
                        self.config.rules.push(rule);
                    }
                }
                _ => self.read_policy(text, table, begin, at),
            }
        }
    }

    fn read_policy(&mut self, text: &str, table: &DeTable<'_>, begin: Origin, at: &impl Fn(usize) -> Origin) {
        let mut pattern = None;
        let mut settings = Settings::default();
        if !table.contains_key(PATTERN) {
            self.mistakes.push(ConfigError::NoPattern { at: begin.clone() });
        }
        for (name, value) in table {
            let found = text.get(value.span()).unwrap_or_default();
            let bad = |allowed| {
                let at = at(value.span().start);
                ConfigError::bad(at, POLICY, name.get_ref(), found, allowed)
            };
            if name.get_ref() == PATTERN {
                let written = value
                    .get_ref()
                    .as_str()
                    .filter(|pattern| Policies::is_pattern(pattern));
                let taken = |written: &str| {
                    let policies = self.config.policies.iter();
                    policies
                        .clone()
                        .any(|(other, _)| Policies::is_same(other, written))
                };
                match written {
                    None => self.mistakes.push(bad(PATTERN_FORM.to_owned())),
                    Some(written) if taken(written) => {
                        self.mistakes.push(bad("each pattern once".to_owned()));
                    }
                    Some(written) => pattern = Some(written.to_owned()),
                }
                continue;
            }
            let Some(key) = SettingKey::named(name.get_ref()) else {
                self.mistakes.push(ConfigError::UnknownSetting {
                    at: at(name.span().start),
                    name: name.get_ref().to_string(),
                });
                continue;
            };
            let value = Value::from_toml(value.get_ref()).and_then(Value::into_setting);
            if !value.is_some_and(|value| settings.state(key, value)) {
                self.mistakes.push(bad(key.allowed()));
            }
        }
        if let Some(pattern) = pattern {
            self.config.policies.push((pattern, settings));
            self.origins.policies.push(begin);
        }
    }

    fn read_variable(&mut self, name: String, value: OsString) {
        let Some(key) = keys().find(|key| key.variable() == name) else {
            self.mistakes.push(ConfigError::UnknownVariable { name });
            return;
        };
        let at = Origin::Variable { name };
        self.origins.note(key, at.clone());
        let parsed = value.to_str().and_then(|text| key.parse(text));
        if parsed.filter(|value| key.set(&mut self.config, value)).is_none() {
            let error = ConfigError::bad_value(at, key, &value.to_string_lossy());
            self.mistakes.push(error);
        }
    }

    /// What no single key can know.
    fn check(&mut self) {
        let mut taken = BTreeSet::new();
        let short = self.config.server.listen.len();
        for (number, Listener { address, .. }) in self.config.every_listener().enumerate() {
            let chosen = address.tcp().is_none_or(|address| address.port() != 0);
            if chosen && !taken.insert(address.to_string()) {
                let at = match number.checked_sub(short) {
                    Some(number) => self.origins.listeners.get(number),
                    None => None,
                };
                let at = at.unwrap_or(self.origins.named("server.listen")).clone();
                self.mistakes.push(ConfigError::ListenerTwice { address }.at(at));
            }
        }
        for (lower, upper) in ordered(&self.config.limits) {
            if lower.1 > upper.1 {
                // One of them is not its default.
                let at = match self.origins.named(lower.0) {
                    Origin::Default => self.origins.named(upper.0),
                    written => written,
                };
                let at = at.clone();
                self.mistakes.push(ConfigError::Order { lower, upper }.at(at));
            }
        }
    }
}

/// A key and its value.
type Named = (&'static str, usize);

/// Pairs of limits of which the first may not be more than the second.
fn ordered(limits: &Limits) -> [(Named, Named); 3] {
    [
        (
            ("limits.header_line_bytes_max", limits.header_line_bytes_max),
            ("limits.header_block_bytes_max", limits.header_block_bytes_max),
        ),
        (
            ("limits.prefetch_count", limits.prefetch_count as usize),
            ("limits.prefetch_count_max", limits.prefetch_count_max as usize),
        ),
        (
            ("limits.body_bytes_max", limits.body_bytes_max),
            ("limits.receiving_bytes_max", limits.receiving_bytes_max),
        ),
    ]
}

/// Reads `IP:PORT` or `localhost:PORT`. Other names are refused: which address they mean is not ours to guess.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => port
            .parse()
            .ok()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        None => text.parse().ok(),
    }
}

/// What [`parse_address`] takes, for messages.
pub const ADDRESS_FORM: &str = "IP:PORT, such as 127.0.0.1:61613 or [::1]:61613 (port 0 = any free port)";
