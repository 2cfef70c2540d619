use proptest::prelude::*;

use super::*;

fn principal(name: &str, groups: &[&str]) -> Principal {
    Principal {
        name: (!name.is_empty()).then(|| name.into()),
        groups: groups.iter().map(|group| (*group).into()).collect(),
    }
}

fn rule(allows: bool, actions: &[&str], principals: &[&str], destinations: &[&str]) -> Rule {
    Rule {
        allows,
        actions: Actions::parse(actions.iter().copied()).unwrap(),
        principals: principals.iter().map(|who| Who::parse(who).unwrap()).collect(),
        destinations: destinations
            .iter()
            .map(|text| Destinations::parse(text).unwrap())
            .collect(),
        line: 1,
    }
}

fn rules(list: impl IntoIterator<Item = Rule>) -> Rules {
    let mut rules = Rules::default();
    list.into_iter().for_each(|rule| rules.push(rule));
    rules
}

#[test]
fn without_rules_all_is_allowed_and_with_one_what_none_is_about_is_denied() {
    let nobody = principal("", &[]);
    let decide = |rules: &Rules| rules.decide(&nobody, Action::Send, DestinationKind::Queue, "a");
    let none = Decision {
        allowed: true,
        rule: None,
    };
    assert_eq!(decide(&Rules::default()), none);
    let other = rules([rule(true, &["send"], &["*"], &["/queue/b"])]);
    let denied = Decision {
        allowed: false,
        rule: None,
    };
    assert_eq!(decide(&other), denied);
}

#[test]
fn the_first_rule_that_is_about_it_decides() {
    let rules = rules([
        rule(false, &["send"], &["*"], &["/queue/a.secret"]),
        rule(true, &["*"], &["group:ops"], &["/queue/a.>"]),
        rule(true, &["send"], &["eve"], &["/queue/>"]),
    ]);
    let check = |who: &Principal, name: &str, allowed: bool, rule: Option<usize>| {
        let decision = rules.decide(who, Action::Send, DestinationKind::Queue, name);
        assert_eq!(decision, Decision { allowed, rule }, "{who:?} {name}");
    };
    let (ops, eve) = (principal("bob", &["x", "ops"]), principal("eve", &[]));
    check(&ops, "a.secret", false, Some(0));
    check(&ops, "a.b", true, Some(1));
    check(&ops, "a", true, Some(1));
    check(&ops, "b", false, None);
    check(&eve, "a.secret", false, Some(0));
    check(&eve, "a.b", true, Some(2));
    check(&principal("ops", &[]), "a.b", false, None);
    check(&principal("group:ops", &[]), "a.b", false, None);
}

#[test]
fn a_name_is_no_keyword_and_a_keyword_no_name() {
    let is = |text: &str, who: &Principal| Who::parse(text).unwrap().is(who);
    let (nobody, named) = (principal("", &[]), principal("anonymous", &[]));
    assert!(is("anonymous", &nobody) && !is("anonymous", &named));
    assert!(is("user:anonymous", &named) && !is("user:anonymous", &nobody));
    assert!(is("*", &nobody) && is("*", &named));
    assert!(!is("user:*", &named) && is("user:*", &principal("*", &[])));
    assert!(is("user:group:x", &principal("group:x", &[])));
    for none in ["", "group:", "user:"] {
        assert_eq!(Who::parse(none), None, "{none:?}");
    }
    for text in [
        "*",
        "anonymous",
        "eve",
        "group:ops",
        "user:*",
        "user:anonymous",
        "user:group:x",
    ] {
        assert_eq!(Who::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn what_is_no_destination_of_a_rule() {
    for text in [
        "a",
        "/queue/",
        "/topic",
        "/queue/a.>.b",
        "/dsub/a",
        "/reply-queue/a",
        "",
        "/",
        ">",
    ] {
        assert_eq!(Destinations::parse(text), None, "{text:?}");
    }
    for text in ["/queue/a", "/topic/>", "/temp-queue/*"] {
        assert_eq!(Destinations::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn a_kind_of_destination_is_no_other() {
    let rules = rules([rule(true, &["*"], &["*"], &["/queue/>"])]);
    let decide = |kind| {
        rules
            .decide(&principal("a", &[]), Action::Send, kind, "a")
            .allowed
    };
    assert!(decide(DestinationKind::Queue));
    assert!(!decide(DestinationKind::Topic));
    assert!(!decide(DestinationKind::Temporary));
}

#[test]
fn a_pattern_is_allowed_in_part_or_as_a_whole() {
    let rules = rules([
        rule(false, &["receive"], &["*"], &["/topic/a.secret"]),
        rule(true, &["receive"], &["*"], &["/topic/a.*", "/topic/b.>"]),
    ]);
    let check = |wanted: &str, some: bool, all: bool| {
        let (who, kind) = (principal("x", &[]), DestinationKind::Topic);
        let part = rules.decide_some(&who, Action::Receive, kind, wanted);
        let whole = rules.decide_all(&who, Action::Receive, kind, wanted);
        assert_eq!((part.allowed, whole.allowed), (some, all), "{wanted}");
    };
    check(">", true, false);
    check("a.*", true, false);
    check("a.secret", false, false);
    check("a.b", true, true);
    check("a.>", true, false);
    check("b.*", true, true);
    check("b.#", true, true);
    check("b", true, true);
    check("c.>", false, false);
    check("*.x", true, false);
}

/// The rule of the documentation, without any cleverness.
fn naive(list: &[Rule], who: &Principal, action: Action, kind: DestinationKind, name: &str) -> bool {
    fn means(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([">" | "#" | "**"], _) => true,
            ([first, pattern @ ..], [level, name @ ..]) => {
                (*first == "*" || first == level) && means(pattern, name)
            }
            _ => false,
        }
    }
    for rule in list {
        let mut about_who = false;
        for of in &rule.principals {
            about_who |= match of {
                Who::Everybody => true,
                Who::Anonymous => who.name.is_none(),
                Who::User(name) => who.name.as_deref() == Some(name),
                Who::Group(group) => who.groups.iter().any(|own| own == group),
            };
        }
        let mut about_what = false;
        for on in &rule.destinations {
            let pattern: Vec<&str> = on.pattern.split('.').collect();
            let name: Vec<&str> = name.split('.').collect();
            about_what |= on.kind == kind && means(&pattern, &name);
        }
        if about_who && about_what && rule.actions.contains(action) {
            return rule.allows;
        }
    }
    list.is_empty()
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let who = prop::sample::select(vec!["*", "anonymous", "x", "y", "group:x", "group:g"]);
    let on = "/(queue|topic|temp-queue)/((a|b|\\*)\\.){0,2}(a|b|\\*|>|#)";
    let action = prop::sample::select(vec!["send", "receive", "create"]);
    (
        any::<bool>(),
        prop::collection::vec(action, 1..3),
        prop::collection::vec(who, 1..3),
        prop::collection::vec(on, 1..3),
    )
        .prop_map(|(allows, actions, who, on)| {
            let on: Vec<&str> = on.iter().map(String::as_str).collect();
            rule(allows, &actions, &who, &on)
        })
}

/// Every name of up to three levels.
fn names() -> Vec<String> {
    let levels = ["a", "b", "c"];
    let mut names: Vec<String> = levels.map(str::to_owned).to_vec();
    for _ in 0..2 {
        let longer = names
            .iter()
            .flat_map(|name| levels.map(|level| format!("{name}.{level}")));
        let longer: Vec<String> = longer.collect();
        names.extend(longer);
    }
    names
}

proptest! {
    #[test]
    fn the_engine_is_its_description(
        list in prop::collection::vec(any_rule(), 0..6),
        name in "((a|b|c)\\.){0,3}(a|b|c)",
        who in prop::sample::select(vec![("", vec![]), ("x", vec![]), ("y", vec!["g"]), ("g", vec!["x", "y"])]),
        action in prop::sample::select(Action::ALL.to_vec()),
        kind in prop::sample::select(vec![DestinationKind::Queue, DestinationKind::Topic, DestinationKind::Temporary]),
    ) {
        let who = principal(who.0, &who.1);
        let decided = rules(list.clone()).decide(&who, action, kind, &name);
        prop_assert_eq!(decided.allowed, naive(&list, &who, action, kind, &name));
        if let Some(no) = decided.rule {
            prop_assert_eq!(list[no].allows, decided.allowed);
        }
    }

    #[test]
    fn a_whole_pattern_has_no_name_that_is_denied_and_one_that_cannot_be_asked_for_none_that_is_allowed(
        list in prop::collection::vec(any_rule(), 1..6),
        wanted in "((a|b|\\*)\\.){0,2}(a|b|\\*|>|#)",
    ) {
        let (who, action, kind) = (principal("x", &["g"]), Action::Receive, DestinationKind::Topic);
        let rules = rules(list.clone());
        let meant: Vec<bool> = names()
            .iter()
            .filter(|name| matches(&wanted, name))
            .map(|name| naive(&list, &who, action, kind, name))
            .collect();
        if rules.decide_all(&who, action, kind, &wanted).allowed {
            prop_assert!(meant.iter().all(|allowed| *allowed));
        }
        if !rules.decide_some(&who, action, kind, &wanted).allowed {
            prop_assert!(!meant.iter().any(|allowed| *allowed));
        }
    }
}
