//! What a destination header names.

/// Whether a destination names a queue or a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationKind {
    /// Each message goes to one subscription; stored.
    Queue,
    /// Each message goes to every subscription present; never stored.
    Topic,
}

/// A destination header, taken apart. The header's own text is kept elsewhere: it is echoed byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// Queue or topic.
    pub kind: DestinationKind,
    /// The name without prefix; never empty.
    pub name: &'a str,
}

impl<'a> Destination<'a> {
    /// Reads `/queue/NAME`, `/topic/NAME`, and a bare `NAME` as `/queue/NAME`.
    ///
    /// `None` for an empty name and for a text that begins with `/` and has another prefix: those are reserved
    /// (`/temp-queue/`, `/dsub/`, `/exchange/`, ...), and guessing would send messages astray.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (kind, name) = match text.strip_prefix("/queue/") {
            Some(name) => (DestinationKind::Queue, name),
            None => match text.strip_prefix("/topic/") {
                Some(name) => (DestinationKind::Topic, name),
                None if text.starts_with('/') => return None,
                None => (DestinationKind::Queue, text),
            },
        };
        (!name.is_empty()).then_some(Self { kind, name })
    }
}
