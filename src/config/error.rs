//! What can be wrong with a configuration. Each is one line that names the place and what is allowed there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Origin;
use super::keys::{Key, keys};
use super::listener::{self, Address};
use super::rule;
use crate::base::{PATTERN_FORM, SETTINGS};

/// Every mistake in a configuration, in the order of their places; one a line.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn new(mut mistakes: Vec<ConfigError>) -> Self {
        // A stable order: mistakes at one place stay as they were found.
        mistakes.sort_by(|one, other| one.place().cmp(&other.place()));
        Self(mistakes)
    }

    /// Fails unless there is none.
    pub fn none(self) -> Result<(), Self> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self),
        }
    }

    /// One more.
    pub fn add(&mut self, mistake: ConfigError) {
        self.0.push(mistake);
        self.0.sort_by(|one, other| one.place().cmp(&other.place()));
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&mistake.line())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{at}: not valid TOML: {message}")]
    Syntax {
        /// Where.
        at: Origin,
        /// The parser's words.
        message: String,
    },
    /// A table that does not exist.
    #[error(
        "{at}: unknown section [{}]; sections are {}",
        on_one_line(section),
        sections()
    )]
    UnknownSection {
        /// Where.
        at: Origin,
        /// As written.
        section: String,
    },
    /// A value where a table belongs.
    #[error("{at}: {section} is a section: write [{section}] and its keys below")]
    NoSection {
        /// Where.
        at: Origin,
        /// As written.
        section: String,
    },
    /// Something else where a list of tables belongs.
    #[error("{at}: {section} is a list of tables: write [[{section}]] and the keys of each below")]
    NoList {
        /// Where.
        at: Origin,
        /// Which.
        section: &'static str,
    },
    /// A listener that is nowhere.
    #[error("{at}: a [[listener]] needs the key address: {}", listener::address_form())]
    NoAddress {
        /// Where.
        at: Origin,
    },
    /// A key of a listener that does not exist.
    #[error(
        "{at}: unknown key listener.{}{}; keys of [[listener]] are {}",
        on_one_line(name),
        meant(name, listener::KEYS),
        listener::KEYS.join(", ")
    )]
    UnknownListenerKey {
        /// Where.
        at: Origin,
        /// As written.
        name: String,
    },
    /// A key that the transport of its listener cannot do without.
    #[error(
        "{at}: a [[listener]] with this transport and client_certificate needs the key {key}: the path of a file"
    )]
    ListenerKeyMissing {
        /// Where.
        at: Origin,
        /// Which.
        key: &'static str,
    },
    /// A key that the transport of its listener has no use for.
    #[error("{at}: listener.{key} has no use without {needs}")]
    ListenerKeyIdle {
        /// Where.
        at: Origin,
        /// Which.
        key: &'static str,
        /// What it is for.
        needs: &'static str,
    },
    /// Files of a listener that cannot be used.
    #[error("{at}: {message}")]
    Certificates {
        /// Of the listener.
        at: Origin,
        /// Which file, and why.
        message: String,
    },
    /// Two listeners at one address.
    #[error("{address} is listened on twice: name it once, in server.listen or in a [[listener]]")]
    ListenerTwice {
        /// Which.
        address: Address,
    },
    /// A policy that is for nothing.
    #[error("{at}: a [[policy]] needs the key pattern: {PATTERN_FORM}")]
    NoPattern {
        /// Where.
        at: Origin,
    },
    /// A key of a rule that does not exist.
    #[error(
        "{at}: unknown key rule.{}; keys of [[rule]] are {}",
        on_one_line(name),
        rule::KEYS.join(", ")
    )]
    UnknownRuleKey {
        /// Where.
        at: Origin,
        /// As written.
        name: String,
    },
    /// A rule that does not say all that a rule says.
    #[error("{at}: a [[rule]] needs {key}")]
    RuleNeeds {
        /// Where.
        at: Origin,
        /// What is missing.
        key: &'static str,
    },
    /// A setting that does not exist.
    #[error(
        "{at}: unknown key policy.{}{}; keys of [[policy]] are pattern, {}",
        on_one_line(name),
        meant(name, SETTINGS.iter().map(|key| key.name)),
        settings()
    )]
    UnknownSetting {
        /// Where.
        at: Origin,
        /// As written.
        name: String,
    },
    /// A key that does not exist.
    #[error(
        "{at}: unknown key {section}.{}{}; keys of [{section}] are {}",
        on_one_line(name),
        meant(name, keys().map(|key| key.name)),
        names(section)
    )]
    UnknownKey {
        /// Where.
        at: Origin,
        /// Its table.
        section: String,
        /// As written.
        name: String,
    },
    /// A variable that matches no key.
    #[error(
        "environment variable {} matches no key; they are named STEADFAST_SECTION_KEY (without SECTION for \
         [server]), such as STEADFAST_DATA_DIR or STEADFAST_LIMITS_BODY_BYTES_MAX: \
         `steadfast config default` lists every key",
        on_one_line(name)
    )]
    UnknownVariable {
        /// As written.
        name: String,
    },
    /// A value that its key does not take.
    #[error("{at}: {key} = {} is not allowed; it takes {allowed}", on_one_line(found))]
    BadValue {
        /// Where.
        at: Origin,
        /// The key, with its section.
        key: String,
        /// As written.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// Something that no single value is wrong in, and where one of them was written.
    #[error("{at}: {error}")]
    Placed {
        /// Where.
        at: Origin,
        /// What.
        error: Box<ConfigError>,
    },
    /// Two values that do not go together.
    #[error("{} = {} is more than {} = {}; it may be at most that", .lower.0, .lower.1, .upper.0, .upper.1)]
    Order {
        /// The key that must be the lower, and its value.
        lower: (&'static str, usize),
        /// The key that must be the upper, and its value.
        upper: (&'static str, usize),
    },
    /// An address that others can reach, while anyone may log in.
    #[error(
        "refused to listen on {address}: it is not a loopback address, and anyone who reaches it could read and \
         write every queue without a login; make users (`steadfast user add NAME`; a listener whose authentication has \
         \"none\" lets anyone in all the same), listen on 127.0.0.1, or ask for it by name with --insecure-allow-anonymous \
         (server.insecure_allow_anonymous = true)"
    )]
    Exposed {
        /// Which.
        address: SocketAddr,
    },
}

impl ConfigError {
    /// With a place, unless nothing was written.
    pub(super) fn at(self, at: Origin) -> Self {
        match at {
            Origin::Default => self,
            at => Self::Placed {
                at,
                error: Box::new(self),
            },
        }
    }

    /// Where the mistake was written, if it has one place.
    pub fn place(&self) -> Option<&Origin> {
        match self {
            Self::Syntax { at, .. }
            | Self::UnknownSection { at, .. }
            | Self::NoSection { at, .. }
            | Self::NoList { at, .. }
            | Self::NoAddress { at }
            | Self::UnknownListenerKey { at, .. }
            | Self::ListenerKeyMissing { at, .. }
            | Self::ListenerKeyIdle { at, .. }
            | Self::NoPattern { at }
            | Self::UnknownRuleKey { at, .. }
            | Self::RuleNeeds { at, .. }
            | Self::UnknownSetting { at, .. }
            | Self::UnknownKey { at, .. }
            | Self::BadValue { at, .. }
            | Self::Certificates { at, .. }
            | Self::Placed { at, .. } => Some(at),
            Self::Unreadable { .. }
            | Self::UnknownVariable { .. }
            | Self::ListenerTwice { .. }
            | Self::Order { .. }
            | Self::Exposed { .. } => None,
        }
    }

    /// The mistake with its cause, on one line.
    pub fn line(&self) -> String {
        match self {
            Self::Unreadable { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    pub(super) fn bad_value(at: Origin, key: &Key, found: &str) -> Self {
        Self::bad(at, key.section, key.name, found, key.allowed())
    }

    pub(super) fn bad(at: Origin, section: &str, name: &str, found: &str, allowed: String) -> Self {
        Self::BadValue {
            at,
            key: format!("{section}.{name}"),
            found: found.to_owned(),
            allowed,
        }
    }
}

/// What was written, without line ends and other controls.
fn on_one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        })
        .collect()
}

/// The name that differs least, where that is little.
fn meant(written: &str, names: impl IntoIterator<Item = &'static str>) -> String {
    // A text of any length may be written there, and what is compared with all names is short.
    if written.len() > 100 {
        return String::new();
    }
    let distances = names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name));
    match distances.min() {
        Some((distance, name)) if distance * 3 <= written.len() => format!(" (did you mean {name}?)"),
        _ => String::new(),
    }
}

fn sections() -> String {
    let mut sections: Vec<_> = keys().map(|key| format!("[{}]", key.section)).collect();
    sections.dedup();
    sections.push("[[listener]]".to_owned());
    sections.push("[[policy]]".to_owned());
    sections.push("[[rule]]".to_owned());
    sections.join(", ")
}

fn settings() -> String {
    let names: Vec<_> = SETTINGS.iter().map(|key| key.name).collect();
    names.join(", ")
}

fn names(section: &str) -> String {
    let names: Vec<_> = keys()
        .filter(|key| key.section == section)
        .map(|key| key.name)
        .collect();
    names.join(", ")
}
