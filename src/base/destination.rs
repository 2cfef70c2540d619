//! What a destination header names.

/// What a destination names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationKind {
    /// Each message goes to one subscription; stored.
    Queue,
    /// Each message goes to every subscription present, and to the queues bound to it; stored in those only.
    Topic,
    /// A queue in memory that one session has made, that it alone takes from, and that is gone with it.
    Temporary,
}

/// A destination header, taken apart. The header's own text is kept elsewhere: it is echoed byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// Queue, topic or temporary queue.
    pub kind: DestinationKind,
    /// The name without prefix; never empty.
    pub name: &'a str,
}

/// Separates the levels of a topic's name.
pub const LEVEL_SEPARATOR: char = '.';

/// A temporary queue by the name that its own session gave it.
pub const TEMPORARY_PREFIX: &str = "/temp-queue/";

/// A temporary queue by the name that all others know: the id of its session, `/`, and its own name.
pub const REPLY_PREFIX: &str = "/reply-queue/";

/// What the broker's own name of a temporary queue begins with.
pub const TEMPORARY_QUEUE_PREFIX: &str = "TEMP.";

/// The prefixes that a destination can have.
const PREFIXES: [(&str, DestinationKind); 4] = [
    ("/queue/", DestinationKind::Queue),
    ("/topic/", DestinationKind::Topic),
    (TEMPORARY_PREFIX, DestinationKind::Temporary),
    (REPLY_PREFIX, DestinationKind::Temporary),
];

impl<'a> Destination<'a> {
    /// Reads `/queue/NAME`, `/topic/NAME`, `/temp-queue/NAME`, `/reply-queue/NAME`, and a bare `NAME` as `/queue/NAME`.
    ///
    /// `None` for an empty name and for a text that begins with `/` and has another prefix: those are reserved
    /// (`/dsub/`, `/exchange/`, ...), and guessing would send messages astray.
    pub fn parse(text: &'a str) -> Option<Self> {
        let prefixed = PREFIXES
            .iter()
            .find_map(|(prefix, kind)| text.strip_prefix(prefix).map(|name| (*kind, name)));
        let (kind, name) = match prefixed {
            Some(prefixed) => prefixed,
            None if text.starts_with('/') => return None,
            None => (DestinationKind::Queue, text),
        };
        (!name.is_empty()).then_some(Self { kind, name })
    }

    /// Whether this is a queue by the name that the broker gives a temporary one: `TEMP.`, the id of its session (eight
    /// hexadecimal digits and two numbers), `/`. Nobody but the broker uses such names.
    pub fn is_reserved(&self) -> bool {
        let session = self
            .name
            .strip_prefix(TEMPORARY_QUEUE_PREFIX)
            .and_then(|rest| rest.split_once('/'));
        let Some((session, _)) = session.filter(|_| self.kind == DestinationKind::Queue) else {
            return false;
        };
        let mut parts = session.split('-');
        let store = parts
            .next()
            .is_some_and(|store| store.len() == 8 && store.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let mut number = || {
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            parts.next().is_some_and(digits)
        };
        store && number() && number() && parts.next().is_none()
    }

    /// Splits a composite destination, `/queue/a,/topic/b`, at each comma that a prefix follows, so that a comma is legal in
    /// a name. Only a text whose first part has a prefix too is a composite; any other is one part.
    pub fn parts(text: &'a str) -> impl Iterator<Item = &'a str> {
        let has_prefix = |text: &str| PREFIXES.iter().any(|(prefix, _)| text.starts_with(prefix));
        let mut rest = Some(text);
        let whole = !has_prefix(text);
        std::iter::from_fn(move || {
            let text = rest?;
            let end = text
                .match_indices(',')
                .map(|(at, _)| at)
                .find(|at| !whole && text.get(at + 1..).is_some_and(has_prefix));
            rest = end.and_then(|at| text.get(at + 1..));
            Some(end.and_then(|at| text.get(..at)).unwrap_or(text))
        })
    }
}

/// What a topic's name says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wildcards {
    /// It names one topic.
    None,
    /// It names many: `*` is any one level; `>`, `#` or `**`, as the last level, is any number of levels, also none.
    Valid,
    /// One of those stands for any number of levels and is not the last; or there are more than [`LEVEL_COUNT_MAX`] levels.
    Misplaced,
}

/// Levels of a name with wildcards, so that what a message is compared with is bounded.
const LEVEL_COUNT_MAX: usize = 64;

impl Wildcards {
    /// Looks at the levels of a topic's name.
    pub fn of(name: &str) -> Self {
        let mut found = Self::None;
        let mut count = 0;
        let mut levels = name.split(LEVEL_SEPARATOR).peekable();
        while let Some(level) = levels.next() {
            count += 1;
            match level {
                level if is_deep(level) && levels.peek().is_some() => return Self::Misplaced,
                level if is_deep(level) || level == ANY => found = Self::Valid,
                _ => {}
            }
        }
        match found {
            Self::Valid if count > LEVEL_COUNT_MAX => Self::Misplaced,
            found => found,
        }
    }
}

/// Any one level.
pub const ANY: &str = "*";

/// Whether this level stands for any number of levels.
pub fn is_deep(level: &str) -> bool {
    matches!(level, ">" | "#" | "**")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composite_is_split_where_a_prefix_follows_a_comma() {
        let cases: &[(&str, &[&str])] = &[
            ("/queue/a", &["/queue/a"]),
            ("/queue/a,/topic/b", &["/queue/a", "/topic/b"]),
            ("/queue/a,b,/topic/c,d", &["/queue/a,b", "/topic/c,d"]),
            ("/queue/a,/queue/", &["/queue/a", "/queue/"]),
            ("/queue/,/queue/a", &["/queue/", "/queue/a"]),
            ("a,/queue/b", &["a,/queue/b"]),
            ("a,b", &["a,b"]),
            ("/queue/a,/other/b", &["/queue/a,/other/b"]),
            ("/queue/ä,/topic/ö", &["/queue/ä", "/topic/ö"]),
            ("", &[""]),
        ];
        for (text, parts) in cases {
            assert_eq!(Destination::parts(text).collect::<Vec<_>>(), *parts, "{text}");
        }
    }

    #[test]
    fn the_names_of_temporary_queues_are_reserved() {
        let reserved = |text: &str| Destination::parse(text).unwrap().is_reserved();
        assert!(reserved("/queue/TEMP.c0ffee01-1-27/x"));
        assert!(reserved("TEMP.c0ffee01-1-27/"));
        for text in [
            "/queue/TEMP.x",
            "/queue/TEMP.orders/x",
            "/queue/TEMP.c0ffee01-1/x",
            "/queue/TEMP.c0ffee01-1-27",
            "/queue/TEMP.c0ffee01-1-2-3/x",
            "/topic/TEMP.c0ffee01-1-27/x",
        ] {
            assert!(!reserved(text), "{text}");
        }
    }

    #[test]
    fn wildcards_are_whole_levels() {
        for name in ["a", "a.b", "a*", "a.b*.c", "a>b", "", "..", "***"] {
            assert_eq!(Wildcards::of(name), Wildcards::None, "{name}");
        }
        for name in ["*", ">", "#", "**", "a.*", "*.a", "a.*.b.>", "a.#", "*.**"] {
            assert_eq!(Wildcards::of(name), Wildcards::Valid, "{name}");
        }
        assert_eq!(Wildcards::of(&format!("{}*", "a.".repeat(63))), Wildcards::Valid);
        assert_eq!(
            Wildcards::of(&format!("{}*", "a.".repeat(64))),
            Wildcards::Misplaced
        );
        assert_eq!(Wildcards::of(&"a.".repeat(1_000)), Wildcards::None);
        for name in [">.a", "a.#.b", "**.**", "a.>."] {
            assert_eq!(Wildcards::of(name), Wildcards::Misplaced, "{name}");
        }
    }
}
