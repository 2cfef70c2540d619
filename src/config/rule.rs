//! `[[rule]]`: who may do what. What rules mean is `base`'s.

use toml::de::DeTable;

use super::{ConfigError, Origin, RULE};
use crate::base::{Action, Actions, Destinations, Rule, Who};

const ALLOW: &str = "allow";
const DENY: &str = "deny";
const PRINCIPALS: &str = "principals";
const DESTINATIONS: &str = "destinations";

/// Every key, for messages.
pub(super) const KEYS: [&str; 4] = [ALLOW, DENY, PRINCIPALS, DESTINATIONS];

/// Reads one table, which begins at `begin`; `None` if it has mistakes.
pub(super) fn read(
    text: &str,
    table: &DeTable<'_>,
    begin: &Origin,
    at: &impl Fn(usize) -> Origin,
    mistakes: &mut Vec<ConfigError>,
) -> Option<Rule> {
    let before = mistakes.len();
    for (name, _) in table
        .iter()
        .filter(|(name, _)| !KEYS.contains(&&**name.get_ref()))
    {
        mistakes.push(ConfigError::UnknownRuleKey {
            at: at(name.span().start),
            name: name.get_ref().to_string(),
        });
    }
    // What is misspelt is not missing, too.
    if mistakes.len() > before {
        return None;
    }
    // A list without items would look like a rule and be none.
    let list = |key: &str| -> Option<Option<Vec<&str>>> {
        let items = table.get(key)?.get_ref().as_array();
        let items = items.filter(|items| !items.is_empty()).map(|items| items.iter());
        Some(items.and_then(|items| items.map(|item| item.get_ref().as_str()).collect()))
    };
    let bad = |key: &str, allowed: String| {
        let value = table.get(key).expect("it was just read");
        let found = text.get(value.span()).unwrap_or_default();
        ConfigError::bad(at(value.span().start), RULE, key, found, allowed)
    };
    let needs = |key| ConfigError::RuleNeeds {
        at: begin.clone(),
        key,
    };
    let mut take = |mistake: ConfigError| mistakes.push(mistake);
    let (allows, key, names) = match (list(ALLOW), list(DENY)) {
        (Some(names), None) => (true, ALLOW, Some(names)),
        (None, Some(names)) => (false, DENY, Some(names)),
        _ => {
            take(needs("allow, or deny, and not both: a list of actions"));
            (false, DENY, None)
        }
    };
    let actions = names.and_then(|names| {
        let actions = names.and_then(Actions::parse);
        if actions.is_none() {
            let known = Action::ALL.map(Action::name).join(", ");
            take(bad(key, format!("a list of {known}; or [\"*\"] for all")));
        }
        actions
    });
    let mut principals: Option<Box<[Who]>> = None;
    match list(PRINCIPALS) {
        None => take(needs("principals: whom it is about")),
        Some(names) => {
            principals = names.and_then(|names| names.into_iter().map(Who::parse).collect());
            if principals.is_none() {
                take(bad(PRINCIPALS, format!("a list of {}", Who::FORM)));
            }
        }
    }
    let mut destinations: Option<Box<[Destinations]>> = None;
    match list(DESTINATIONS) {
        None => take(needs("destinations: what it is about")),
        Some(names) => {
            destinations = names.and_then(|names| names.into_iter().map(Destinations::parse).collect());
            if destinations.is_none() {
                take(bad(DESTINATIONS, format!("a list of {}", Destinations::FORM)));
            }
        }
    }
    let line = match begin {
        Origin::File { line, .. } => *line,
        _ => 0,
    };
    let is_whole = mistakes.len() == before;
    Some(Rule {
        allows,
        actions: actions?,
        principals: principals?,
        destinations: destinations?,
        line,
    })
    .filter(|_| is_whole)
}
