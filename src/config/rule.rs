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

/// Reads one table, which begins at `begin`.
pub(super) fn read(
    text: &str,
    table: &DeTable<'_>,
    begin: Origin,
    at: &impl Fn(usize) -> Origin,
) -> Result<Rule, ConfigError> {
    if let Some((name, _)) = table.iter().find(|(name, _)| !KEYS.contains(&&**name.get_ref())) {
        return Err(ConfigError::UnknownRuleKey {
            at: at(name.span().start),
            name: name.get_ref().to_string(),
        });
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
    let (allows, key, names) = match (list(ALLOW), list(DENY)) {
        (Some(names), None) => (true, ALLOW, names),
        (None, Some(names)) => (false, DENY, names),
        _ => return Err(needs("allow, or deny, and not both: a list of actions")),
    };
    let actions = names.and_then(Actions::parse).ok_or_else(|| {
        let known = Action::ALL.map(Action::name).join(", ");
        bad(key, format!("a list of {known}; or [\"*\"] for all"))
    })?;
    let names = list(PRINCIPALS).ok_or_else(|| needs("principals: whom it is about"))?;
    let principals = names.and_then(|names| names.into_iter().map(Who::parse).collect());
    let principals = principals.ok_or_else(|| bad(PRINCIPALS, format!("a list of {}", Who::FORM)))?;
    let names = list(DESTINATIONS).ok_or_else(|| needs("destinations: what it is about"))?;
    let destinations = names.and_then(|names| names.into_iter().map(Destinations::parse).collect());
    let destinations =
        destinations.ok_or_else(|| bad(DESTINATIONS, format!("a list of {}", Destinations::FORM)))?;
    let line = match begin {
        Origin::File { line, .. } => line,
        Origin::Variable { .. } => 0,
    };
    Ok(Rule {
        allows,
        actions,
        principals,
        destinations,
        line,
    })
}
