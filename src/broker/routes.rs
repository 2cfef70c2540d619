//! Which subscriptions, and which queues, a message for a topic goes to.
//!
//! # Invariants
//! - A topic, or pattern of topics, is here while something stands at it.
//! - The nodes of the pattern tree are found by number and not held by each other, so that neither its depth nor its end
//!   costs stack.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::base::{ANY, LEVEL_SEPARATOR, Wildcards, is_deep};

use super::queue::{QueueNo, SubRef};

/// What stands at one topic or pattern.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// Subscriptions present, in the order in which they came.
    pub(super) subs: Vec<SubRef>,
    /// Queues bound to it.
    pub(super) queues: BTreeSet<QueueNo>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Routes {
    by_name: BTreeMap<Arc<str>, Route>,
    patterns: Patterns,
}

impl Routes {
    /// What stands at a topic or pattern; made if there is nothing.
    pub(super) fn open(&mut self, name: &Arc<str>) -> &mut Route {
        if !self.by_name.contains_key(name) {
            if Wildcards::of(name) == Wildcards::Valid {
                self.patterns.insert(name);
            }
            self.by_name.insert(Arc::clone(name), Route::default());
        }
        self.by_name.get_mut(name).expect("it was just made")
    }

    /// Changes what stands at a topic or pattern, which is forgotten if nothing is left.
    pub(super) fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Route)) {
        let Some(route) = self.by_name.get_mut(name) else {
            return;
        };
        change(route);
        if route.subs.is_empty() && route.queues.is_empty() {
            self.by_name.remove(name);
            self.patterns.remove(name);
        }
    }

    /// Everything that a message for a topic reaches.
    fn matching(&self, topic: &str) -> impl Iterator<Item = &Route> {
        let exact = self.by_name.get(topic);
        let patterns = self.patterns.matching(topic);
        exact
            .into_iter()
            .chain(patterns.into_iter().filter_map(|name| self.by_name.get(name)))
    }

    /// The subscriptions present that a message for a topic reaches.
    pub(super) fn subs_of(&self, topic: &str) -> Vec<SubRef> {
        self.matching(topic)
            .flat_map(|route| route.subs.iter().copied())
            .collect()
    }

    /// The queues that a message for a topic reaches, each once.
    pub(super) fn queues_of(&self, topic: &str) -> BTreeSet<QueueNo> {
        self.matching(topic)
            .flat_map(|route| route.queues.iter().copied())
            .collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Route> {
        self.by_name.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// By name, from a name on.
    pub(super) fn range_from(&self, from: &str) -> impl Iterator<Item = (&Arc<str>, &Route)> {
        self.by_name
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
    }
}

/// Patterns by level, so that a message looks only at those that may match.
#[derive(Debug, Default)]
struct Patterns {
    nodes: BTreeMap<NodeNo, Node>,
    last: NodeNo,
}

type NodeNo = u64;

const ROOT: NodeNo = 0;

#[derive(Debug, Default)]
struct Node {
    /// By the text of the next level, `*` among them.
    next: BTreeMap<Box<str>, NodeNo>,
    /// The pattern that ends here.
    here: Option<Arc<str>>,
    /// Those that end here with any number of levels more: one for each way to write it.
    below: BTreeSet<Arc<str>>,
}

impl Patterns {
    /// The levels of a pattern, but for a last one that stands for any number of them; and whether there is one.
    fn levels(pattern: &str) -> (Vec<&str>, bool) {
        let mut levels: Vec<&str> = pattern.split(LEVEL_SEPARATOR).collect();
        let deep = levels.last().is_some_and(|last| is_deep(last));
        levels.truncate(levels.len() - usize::from(deep));
        (levels, deep)
    }

    fn insert(&mut self, pattern: &Arc<str>) {
        let (levels, deep) = Self::levels(pattern);
        let mut at = ROOT;
        self.nodes.entry(ROOT).or_default();
        for level in levels {
            let next = self.last + 1;
            let node = self.nodes.get_mut(&at).expect("each level was made");
            at = *node.next.entry(level.into()).or_insert(next);
            if at == next {
                self.last = next;
                self.nodes.insert(next, Node::default());
            }
        }
        let node = self.nodes.get_mut(&at).expect("it was just made");
        if deep {
            node.below.insert(Arc::clone(pattern));
        } else {
            node.here = Some(Arc::clone(pattern));
        }
    }

    /// Takes a pattern out, if it is there.
    fn remove(&mut self, pattern: &Arc<str>) {
        let (levels, deep) = Self::levels(pattern);
        let mut path = Vec::new();
        let mut at = ROOT;
        for level in levels {
            let next = self.nodes.get(&at).and_then(|node| node.next.get(level));
            let Some(&next) = next else { return };
            path.push((at, level));
            at = next;
        }
        let Some(node) = self.nodes.get_mut(&at) else {
            return;
        };
        if deep {
            node.below.remove(pattern);
        } else {
            node.here = None;
        }
        // What leads nowhere any more goes with it.
        while self.nodes.get(&at).is_some_and(Node::is_empty)
            && let Some((parent, level)) = path.pop()
        {
            self.nodes.remove(&at);
            let parent_node = self.nodes.get_mut(&parent).expect("it leads here");
            parent_node.next.remove(level);
            at = parent;
        }
    }

    /// The patterns that a topic matches. Looks at each node once at most.
    fn matching(&self, topic: &str) -> Vec<&Arc<str>> {
        let mut found = Vec::new();
        let mut at: Vec<&Node> = self.nodes.get(&ROOT).into_iter().collect();
        for level in topic.split(LEVEL_SEPARATOR) {
            if at.is_empty() {
                break;
            }
            let mut next = Vec::new();
            for node in at {
                found.extend(&node.below);
                let named = node.next.get(level);
                // A message's topic has no level `*`, so the two differ.
                let any = node.next.get(ANY);
                next.extend(
                    [named, any]
                        .into_iter()
                        .flatten()
                        .filter_map(|no| self.nodes.get(no)),
                );
            }
            at = next;
        }
        for node in at {
            found.extend(&node.here);
            found.extend(&node.below);
        }
        found
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.next.is_empty() && self.here.is_none() && self.below.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes(patterns: &[&str]) -> Routes {
        let mut routes = Routes::default();
        for (no, pattern) in (0..).zip(patterns) {
            routes.open(&Arc::from(*pattern)).queues.insert(QueueNo(no));
        }
        routes
    }

    #[test]
    fn a_message_reaches_what_matches_its_topic() {
        let patterns = ["a.b", "a.*", "*.b", "a.>", "a.b.#", ">", "*", "a.*.c", "a.b.c.**"];
        let routes = routes(&patterns);
        let reached = |topic: &str| -> Vec<&str> {
            let queues = routes.queues_of(topic).into_iter();
            queues.map(|no| patterns[no.0 as usize]).collect()
        };
        assert_eq!(reached("a.b"), ["a.b", "a.*", "*.b", "a.>", "a.b.#", ">"]);
        assert_eq!(reached("a"), ["a.>", ">", "*"]);
        assert_eq!(reached("a.b.c"), ["a.>", "a.b.#", ">", "a.*.c", "a.b.c.**"]);
        assert_eq!(reached("a.x.c.d"), ["a.>", ">"]);
        assert_eq!(reached("x"), [">", "*"]);
        assert_eq!(reached("a."), ["a.*", "a.>", ">"]);
    }

    #[test]
    fn nothing_is_left_of_what_ended() {
        let patterns = ["a.*.b", "a.*", "a.>", "a.#", "*", ">", "a.b"];
        let mut routes = routes(&patterns);
        for pattern in patterns {
            routes.change(&Arc::from(pattern), |route| route.queues.clear());
            assert!(routes.get(pattern).is_none());
        }
        assert_eq!(routes.len(), 0);
        assert_eq!(routes.patterns.nodes.len(), 1, "only the root");
    }

    #[test]
    fn a_topic_of_very_many_levels_is_looked_at_as_far_as_patterns_go() {
        let mut routes = Routes::default();
        let deep: Arc<str> = format!("{}*", "*.".repeat(63)).into();
        routes.open(&deep).queues.insert(QueueNo(0));
        assert_eq!(routes.queues_of(&format!("{}x", "x.".repeat(63))).len(), 1);
        assert_eq!(routes.queues_of(&"x.".repeat(1_000_000)).len(), 0);
        routes.change(&deep, |route| route.queues.clear());
        assert_eq!(routes.patterns.nodes.len(), 1);
    }

    /// The definition, level by level.
    fn matches(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            ([last], _) if is_deep(last) => true,
            ([first, pattern @ ..], [level, topic @ ..]) => {
                (*first == ANY || first == level) && matches(pattern, topic)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_tree_is_the_definition(
            patterns in prop::collection::btree_set("((a|b|\\*)\\.){0,3}(a|b|\\*|>|#|\\*\\*)", 1..20),
            gone in prop::collection::vec(any::<bool>(), 20),
            topic in "((a|b|c)\\.){0,4}(a|b|c)",
        ) {
            let patterns: Vec<String> = patterns.into_iter().collect();
            let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let mut routes = routes(&texts);
            let mut expected = BTreeSet::new();
            for ((no, pattern), gone) in (0..).zip(&texts).zip(gone) {
                let levels: Vec<&str> = pattern.split(LEVEL_SEPARATOR).collect();
                let topic: Vec<&str> = topic.split(LEVEL_SEPARATOR).collect();
                if gone {
                    routes.change(&Arc::from(*pattern), |route| route.queues.clear());
                } else if matches(&levels, &topic) {
                    expected.insert(QueueNo(no));
                }
            }
            prop_assert_eq!(routes.queues_of(&topic), expected);
        }
    }
}
