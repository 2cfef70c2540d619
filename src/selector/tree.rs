//! What a selector is parsed to, and what it answers: true, false, or unknown (`None`), by the tables of section 3.8.1.1.

use std::cmp::Ordering;

use super::like::Pattern;
use super::name::Reading;
use super::number::{Arithmetic, Number};

/// The headers that a selector reads, each once.
pub(super) type Names = Box<[Box<str>]>;

/// A header of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Property {
    /// In the names of the selector.
    pub(super) index: usize,
    pub(super) reading: &'static Reading,
}

impl Property {
    fn text<'m>(self, value: &impl Fn(usize) -> Option<&'m str>) -> Option<&'m str> {
        self.reading.of(value(self.index))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// What is true, false or unknown. `<>` and the forms with NOT are a [`Condition::Not`]: what is unknown stays so.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Constant(bool),
    /// The header says true or false.
    Flag(Property),
    Not(Box<Condition>),
    And(Box<[Condition]>),
    Or(Box<[Condition]>),
    Compare(Numeric, Comparison, Numeric),
    /// Header and literal are the same text.
    SameText(Property, Box<str>),
    /// Two headers are the same text.
    SameProperty(Property, Property),
    SameTruth(Box<(Condition, Condition)>),
    Between(Box<[Numeric; 3]>),
    In(Property, Box<[Literal]>),
    Like(Property, Box<Pattern>),
    IsNull(Property),
}

/// One of an IN list.
#[derive(Debug, Clone)]
pub(super) enum Literal {
    Text(Box<str>),
    Number(Number),
}

/// What is a number or unknown.
#[derive(Debug, Clone)]
pub(super) enum Numeric {
    Constant(Number),
    /// The header's text, read as a number.
    Property(Property),
    Negated(Box<Numeric>),
    /// From left to right.
    Chain(Box<Numeric>, Box<[(Arithmetic, Numeric)]>),
}

impl Condition {
    pub(super) fn truth<'m>(&self, value: &impl Fn(usize) -> Option<&'m str>) -> Option<bool> {
        match self {
            Self::Constant(truth) => Some(*truth),
            Self::Flag(property) => {
                let text = property.text(value)?;
                let says = |word| text.eq_ignore_ascii_case(word);
                says("true").then_some(true).or(says("false").then_some(false))
            }
            Self::Not(inner) => inner.truth(value).map(|truth| !truth),
            Self::And(all) => decided(false, all.iter().map(|one| one.truth(value))),
            Self::Or(all) => decided(true, all.iter().map(|one| one.truth(value))),
            Self::Compare(left, how, right) => {
                Some(how.holds(left.number(value)?.compare(right.number(value)?)))
            }
            Self::SameText(property, text) => Some(property.text(value)? == &**text),
            Self::SameProperty(left, right) => Some(left.text(value)? == right.text(value)?),
            Self::SameTruth(both) => Some(both.0.truth(value)? == both.1.truth(value)?),
            Self::Between(three) => {
                let [number, low, high] = &**three;
                let number = number.number(value);
                let holds =
                    |how: Comparison, bound: &Numeric| Some(how.holds(number?.compare(bound.number(value)?)));
                let both = [
                    holds(Comparison::GreaterOrEqual, low),
                    holds(Comparison::LessOrEqual, high),
                ];
                decided(false, both)
            }
            Self::In(property, literals) => {
                let text = property.text(value)?;
                let number = Number::read(text);
                let equals = |literal: &Literal| match literal {
                    Literal::Text(literal) => Some(text == &**literal),
                    Literal::Number(literal) => Some(number?.compare(*literal).is_eq()),
                };
                decided(true, literals.iter().map(equals))
            }
            Self::Like(property, pattern) => Some(pattern.matches(property.text(value)?)),
            Self::IsNull(property) => Some(property.text(value).is_none()),
        }
    }

    /// The opposite; of an opposite, what it is of.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Constant(truth) => Self::Constant(!truth),
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }
}

/// Of several truths, the one that decides (false for AND, true for OR) if there is one, unknown if there is an unknown, else
/// the opposite.
fn decided(decides: bool, truths: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut outcome = Some(!decides);
    for truth in truths {
        if truth == Some(decides) {
            return truth;
        }
        if truth.is_none() {
            outcome = None;
        }
    }
    outcome
}

impl Numeric {
    fn number<'m>(&self, value: &impl Fn(usize) -> Option<&'m str>) -> Option<Number> {
        match self {
            Self::Constant(number) => Some(*number),
            Self::Property(property) => Number::read(property.text(value)?),
            Self::Negated(inner) => inner.number(value).map(Number::negate),
            Self::Chain(first, rest) => rest.iter().try_fold(first.number(value)?, |left, (how, right)| {
                left.calculate(*how, right.number(value)?)
            }),
        }
    }

    /// The negative; of a negative, what it is of.
    pub(super) fn negate(self) -> Self {
        match self {
            Self::Constant(number) => Self::Constant(number.negate()),
            Self::Negated(inner) => *inner,
            other => Self::Negated(Box::new(other)),
        }
    }
}
