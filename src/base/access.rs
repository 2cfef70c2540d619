//! Who may do what: rules by principal, action and destination, and what they decide.
//!
//! # Invariants
//! - Where no rule stands everything is allowed; where one stands, what none is about is denied.
//! - The first rule, in the order of the file, that is about principal, action and destination decides.
//! - A decision about a pattern is one about every name, or about some name, that the pattern means: never a guess.
//!
//! # Not here
//! Which frames need which right: `broker/access`.

use std::fmt;

use super::destination::{ANY, Destination, DestinationKind, LEVEL_SEPARATOR, TEMPORARY_PREFIX, is_deep};
use super::identity::Principal;
use super::policy::{Policies, matches};

/// What somebody wants to do with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// To add messages.
    Send,
    /// To take messages, or to be present at a topic.
    Receive,
    /// To look at messages.
    Browse,
    /// To make a queue, to declare something of it, to bind it to a topic, or to end what was bound.
    Create,
    /// To drop messages of others.
    Purge,
    /// To do what an operator does.
    Admin,
}

impl Action {
    /// Every action, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::Send,
        Self::Receive,
        Self::Browse,
        Self::Create,
        Self::Purge,
        Self::Admin,
    ];

    /// What it is called in rules, ERRORs and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Browse => "browse",
            Self::Create => "create",
            Self::Purge => "purge",
            Self::Admin => "admin",
        }
    }

    /// The action of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions(u8);

impl Actions {
    /// All of them.
    pub const ALL: &str = "*";

    /// Adds one.
    pub fn insert(&mut self, action: Action) {
        self.0 |= 1 << action as u8;
    }

    /// Takes one out.
    pub fn remove(&mut self, action: Action) {
        self.0 &= !(1 << action as u8);
    }

    /// Whether one is in it.
    pub fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    /// Reads names of actions, of which `*` is every one. `None` for another text, and for none at all.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut actions = Self::default();
        for name in names {
            match name {
                Self::ALL => Action::ALL.into_iter().for_each(|action| actions.insert(action)),
                name => actions.insert(Action::named(name)?),
            }
        }
        (actions != Self::default()).then_some(actions)
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// `*`: everybody, with a name or without.
    Everybody,
    /// `anonymous`: those without a name.
    Anonymous,
    /// `NAME` or `user:NAME`.
    User(Box<str>),
    /// `group:NAME`.
    Group(Box<str>),
}

impl Who {
    /// What [`Who::parse`] takes, for messages.
    pub const FORM: &str = "names of users (NAME, or user:NAME), group:NAME, anonymous for those without a name, * for everybody";

    /// Reads what a rule names. `None` for an empty name.
    pub fn parse(text: &str) -> Option<Self> {
        let some = |name: &str| (!name.is_empty()).then(|| name.into());
        Some(match text {
            "*" => Self::Everybody,
            "anonymous" => Self::Anonymous,
            text => match (text.strip_prefix("group:"), text.strip_prefix("user:")) {
                (Some(name), _) => Self::Group(some(name)?),
                (None, name) => Self::User(some(name.unwrap_or(text))?),
            },
        })
    }

    fn is(&self, principal: &Principal) -> bool {
        match self {
            Self::Everybody => true,
            Self::Anonymous => principal.name.is_none(),
            Self::User(name) => principal.name.as_ref() == Some(name),
            Self::Group(name) => principal.groups.contains(name),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) if Self::parse(name) == Some(self.clone()) => f.write_str(name),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// Destinations of one kind whose names match a pattern: that of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destinations {
    /// Of a temporary queue its own name counts.
    pub kind: DestinationKind,
    /// Without prefix.
    pub pattern: Box<str>,
}

impl Destinations {
    /// What [`Destinations::parse`] takes, for messages.
    pub const FORM: &str = "/queue/, /topic/ or /temp-queue/ before a name or a pattern of names: levels between dots, * for one, > # or ** at the end for all below";

    /// Reads a destination, with its prefix, whose name may be a pattern.
    pub fn parse(text: &str) -> Option<Self> {
        // A bare name is a queue's in a frame; in a rule it would more often be a mistake.
        let Destination { kind, name } = Destination::parse(text).filter(|_| text.starts_with('/'))?;
        let known = kind != DestinationKind::Temporary || text.starts_with(TEMPORARY_PREFIX);
        (known && Policies::is_pattern(name)).then(|| Self {
            kind,
            pattern: name.into(),
        })
    }
}

impl fmt::Display for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", prefix(self.kind), self.pattern)
    }
}

/// What is before the name of a destination in rules.
fn prefix(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Queue => "/queue/",
        DestinationKind::Topic => "/topic/",
        DestinationKind::Temporary => TEMPORARY_PREFIX,
    }
}

/// A destination as rules write it.
pub fn written(kind: DestinationKind, name: &str) -> String {
    format!("{}{name}", prefix(kind))
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// It allows what it is about, or denies it.
    pub allows: bool,
    /// Which actions.
    pub actions: Actions,
    /// Whose; one of them is enough.
    pub principals: Box<[Who]>,
    /// On what; one of them is enough.
    pub destinations: Box<[Destinations]>,
    /// The line of the file in which it begins.
    pub line: usize,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = Action::ALL
            .into_iter()
            .filter(|action| self.actions.contains(*action));
        f.write_str(if self.allows { "allow " } else { "deny " })?;
        list(f, actions.map(Action::name))?;
        f.write_str(" to ")?;
        list(f, &self.principals)?;
        f.write_str(" on ")?;
        list(f, &self.destinations)
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: impl IntoIterator<Item = T>) -> fmt::Result {
    for (at, item) in items.into_iter().enumerate() {
        write!(f, "{}{item}", if at > 0 { ", " } else { "" })?;
    }
    Ok(())
}

impl Rule {
    fn is_about(&self, principal: &Principal, action: Action) -> bool {
        self.actions.contains(action) && self.principals.iter().any(|who| who.is(principal))
    }

    fn patterns(&self, of: DestinationKind) -> impl Iterator<Item = &str> {
        let same = self.destinations.iter().filter(move |on| on.kind == of);
        same.map(|on| &*on.pattern)
    }
}

/// What rules say of somebody, an action and a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Which rule says so, counted from 0; `None`: none does, and what holds without one decides.
    pub rule: Option<usize>,
}

/// Rules in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    list: Vec<Rule>,
}

impl Rules {
    /// Adds one behind the others.
    pub fn push(&mut self, rule: Rule) {
        self.list.push(rule);
    }

    /// Whether there is none, so that everything is allowed.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One of them.
    pub fn get(&self, no: usize) -> Option<&Rule> {
        self.list.get(no)
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.list.iter()
    }

    /// Whether somebody may do something with one destination.
    pub fn decide(
        &self,
        principal: &Principal,
        action: Action,
        kind: DestinationKind,
        name: &str,
    ) -> Decision {
        self.first(principal, action, |rule| {
            let about = rule.patterns(kind).any(|pattern| matches(pattern, name));
            about.then_some(rule.allows)
        })
    }

    /// Whether somebody may do something with at least one of the names that a pattern means: whether it may be asked for.
    pub fn decide_some(
        &self,
        principal: &Principal,
        action: Action,
        kind: DestinationKind,
        wanted: &str,
    ) -> Decision {
        self.first(principal, action, |rule| {
            let about = match rule.allows {
                true => rule.patterns(kind).any(|pattern| overlap(pattern, wanted)),
                false => rule.patterns(kind).any(|pattern| covers(pattern, wanted)),
            };
            about.then_some(rule.allows)
        })
    }

    /// Whether somebody may do something with each of the names that a pattern means, as far as single rules say so: several
    /// that allow it in parts are not added up.
    pub fn decide_all(
        &self,
        principal: &Principal,
        action: Action,
        kind: DestinationKind,
        wanted: &str,
    ) -> Decision {
        self.first(principal, action, |rule| {
            let about = match rule.allows {
                true => rule.patterns(kind).any(|pattern| covers(pattern, wanted)),
                false => rule.patterns(kind).any(|pattern| overlap(pattern, wanted)),
            };
            about.then_some(rule.allows)
        })
    }

    fn first(
        &self,
        principal: &Principal,
        action: Action,
        decides: impl Fn(&Rule) -> Option<bool>,
    ) -> Decision {
        let mut own = self.list.iter().enumerate();
        let found = own.find_map(|(no, rule)| {
            let rule = Some(rule).filter(|rule| rule.is_about(principal, action))?;
            Some((no, decides(rule)?))
        });
        match found {
            Some((no, allowed)) => Decision {
                allowed,
                rule: Some(no),
            },
            None => Decision {
                allowed: self.list.is_empty(),
                rule: None,
            },
        }
    }
}

/// Whether a pattern means every name that another means. True is certain; of two ways to write the same (`>` and `*.>`) it may
/// say false.
fn covers(pattern: &str, other: &str) -> bool {
    let mut wanted = other.split(LEVEL_SEPARATOR);
    for level in pattern.split(LEVEL_SEPARATOR) {
        if is_deep(level) {
            return true;
        }
        match wanted.next() {
            Some(other) if !is_deep(other) && (level == ANY || level == other) => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

/// Whether there is a name that both patterns mean.
fn overlap(one: &str, other: &str) -> bool {
    let (mut ones, mut others) = (one.split(LEVEL_SEPARATOR), other.split(LEVEL_SEPARATOR));
    loop {
        match (ones.next(), others.next()) {
            (Some(level), _) | (_, Some(level)) if is_deep(level) => return true,
            (Some(one), Some(other)) if one == other || one == ANY || other == ANY => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
