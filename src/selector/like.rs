//! The patterns of LIKE, matched in linear time: what stands between two `%` is looked for once, from left to right.

use memchr::memmem::Finder;

/// One sign of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// This character.
    Is(char),
    /// `_`, any one character.
    One,
    /// `%`, any characters, or none.
    Many,
}

/// Characters between two `%`, `_` among them, that are looked for bit by bit: as many as a word has bits.
pub(super) const STRETCH_CHARS_MAX: usize = 64;

/// A pattern, cut at each `%`.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    signs: Box<[Sign]>,
    head: Box<[Sign]>,
    middle: Box<[Stretch]>,
    /// Without any `%` there is none.
    tail: Option<Box<[Sign]>>,
}

impl Pattern {
    /// `None` if a stretch with `_` between two `%` is over [`STRETCH_CHARS_MAX`].
    pub(super) fn new(mut signs: Vec<Sign>) -> Option<Self> {
        signs.dedup_by(|a, b| *a == Sign::Many && *b == Sign::Many);
        let mut pieces = signs.split(|sign| *sign == Sign::Many);
        let head = pieces.next().unwrap_or_default().into();
        let tail = pieces.next_back().map(Into::into);
        let middle = pieces.map(Stretch::new).collect::<Option<_>>()?;
        Some(Self {
            head,
            middle,
            tail,
            signs: signs.into(),
        })
    }

    pub(super) fn signs(&self) -> &[Sign] {
        &self.signs
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let mut chars = text.chars();
        if !self.head.iter().all(|sign| is(*sign, chars.next())) {
            return false;
        }
        let mut rest = chars.as_str();
        let Some(tail) = &self.tail else {
            return rest.is_empty();
        };
        for stretch in &self.middle {
            let Some(after) = stretch.behind(rest) else {
                return false;
            };
            rest = after;
        }
        let mut chars = rest.chars();
        tail.iter().rev().all(|sign| is(*sign, chars.next_back()))
    }
}

fn is(sign: Sign, char: Option<char>) -> bool {
    match sign {
        Sign::Is(expected) => char == Some(expected),
        Sign::One | Sign::Many => char.is_some(),
    }
}

/// What stands between two `%`. The first place where it fits is as good as any: it leaves the most for what follows.
#[derive(Debug, Clone)]
enum Stretch {
    Text(Box<Finder<'static>>),
    Holes(Holes),
}

impl Stretch {
    fn new(signs: &[Sign]) -> Option<Self> {
        let text: Option<String> = signs
            .iter()
            .map(|sign| match sign {
                Sign::Is(char) => Some(*char),
                Sign::One | Sign::Many => None,
            })
            .collect();
        match text {
            Some(text) => Some(Self::Text(Box::new(Finder::new(&text).into_owned()))),
            None => Holes::new(signs).map(Self::Holes),
        }
    }

    /// What of the text is behind the first place.
    fn behind<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Text(finder) => text.get(finder.find(text.as_bytes())? + finder.needle().len()..),
            Self::Holes(holes) => holes.behind(text),
        }
    }
}

/// The Shift-And search: bit i of the state says that the i + 1 characters read last fit the first i + 1 signs.
#[derive(Debug, Clone)]
struct Holes {
    /// For each character of the signs, sorted, where it may stand.
    places: Box<[(char, u64)]>,
    /// Where any character may.
    any: u64,
    last: u64,
}

impl Holes {
    fn new(signs: &[Sign]) -> Option<Self> {
        if signs.len() > STRETCH_CHARS_MAX {
            return None;
        }
        let bits_of = |of: Sign| {
            let bits = signs.iter().enumerate().filter(|(_, sign)| **sign == of);
            bits.fold(0, |all, (place, _)| all | 1 << place)
        };
        let any = bits_of(Sign::One);
        let mut places: Vec<(char, u64)> = signs
            .iter()
            .filter_map(|sign| match sign {
                Sign::Is(char) => Some((*char, any | bits_of(*sign))),
                Sign::One | Sign::Many => None,
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        Some(Self {
            places: places.into(),
            any,
            last: 1 << signs.len().checked_sub(1)?,
        })
    }

    fn behind<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut state = 0_u64;
        let mut chars = text.chars();
        loop {
            let char = chars.next()?;
            let found = self.places.binary_search_by_key(&char, |(of, _)| *of);
            let fits = found
                .ok()
                .and_then(|at| self.places.get(at))
                .map_or(self.any, |(_, bits)| *bits);
            state = (state << 1 | 1) & fits;
            if state & self.last != 0 {
                return Some(chars.as_str());
            }
        }
    }
}
