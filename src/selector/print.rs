//! A tree as text, in the one form that all equal selectors share, and that is parsed to the same tree.

use std::fmt::{self, Display, Formatter, Write as _};

use super::like::{Pattern, Sign};
use super::name::{self, Reading};
use super::number::{Arithmetic, Number};
use super::token::is_identifier;
use super::tree::{Comparison, Condition, Literal, Names, Numeric, Property};

pub(super) struct Printed<'a> {
    pub(super) condition: &'a Condition,
    pub(super) names: &'a Names,
}

impl Display for Printed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition(f, self.condition)
    }
}

impl Printed<'_> {
    fn condition(&self, f: &mut Formatter<'_>, condition: &Condition) -> fmt::Result {
        match condition {
            Condition::Constant(true) => f.write_str("TRUE"),
            Condition::Constant(false) => f.write_str("FALSE"),
            Condition::Flag(property) => {
                self.property(f, *property)?;
                f.write_str(" = TRUE")
            }
            Condition::Not(inner) => {
                f.write_str("NOT ")?;
                self.operand(f, inner)
            }
            Condition::And(all) => self.joined(f, " AND ", all),
            Condition::Or(all) => self.joined(f, " OR ", all),
            Condition::Compare(left, how, right) => {
                // Two headers would be compared as texts.
                let bare = |numeric: &Numeric| matches!(numeric, Numeric::Property(_));
                if *how == Comparison::Equal && bare(left) && bare(right) {
                    f.write_char('+')?;
                }
                self.numeric(f, left)?;
                f.write_str(match how {
                    Comparison::Equal => " = ",
                    Comparison::Less => " < ",
                    Comparison::LessOrEqual => " <= ",
                    Comparison::Greater => " > ",
                    Comparison::GreaterOrEqual => " >= ",
                })?;
                self.numeric(f, right)
            }
            Condition::SameText(property, text) => {
                self.property(f, *property)?;
                f.write_str(" = ")?;
                quoted(f, '\'', text)
            }
            Condition::SameProperty(left, right) => {
                self.property(f, *left)?;
                f.write_str(" = ")?;
                self.property(f, *right)
            }
            Condition::SameTruth(both) => {
                self.parenthesized(f, &both.0)?;
                f.write_str(" = ")?;
                self.parenthesized(f, &both.1)
            }
            Condition::Between(three) => {
                let [number, low, high] = &**three;
                self.numeric(f, number)?;
                f.write_str(" BETWEEN ")?;
                self.numeric(f, low)?;
                f.write_str(" AND ")?;
                self.numeric(f, high)
            }
            Condition::In(property, literals) => {
                self.property(f, *property)?;
                let mut before = " IN (";
                for literal in literals {
                    f.write_str(before)?;
                    match literal {
                        Literal::Text(text) => quoted(f, '\'', text)?,
                        Literal::Number(value) => number(f, *value)?,
                    }
                    before = ", ";
                }
                f.write_char(')')
            }
            Condition::Like(property, like) => {
                self.property(f, *property)?;
                f.write_str(" LIKE ")?;
                pattern(f, like)
            }
            Condition::IsNull(property) => {
                self.property(f, *property)?;
                f.write_str(" IS NULL")
            }
        }
    }

    fn parenthesized(&self, f: &mut Formatter<'_>, condition: &Condition) -> fmt::Result {
        f.write_char('(')?;
        self.condition(f, condition)?;
        f.write_char(')')
    }

    /// Of NOT, AND or OR.
    fn operand(&self, f: &mut Formatter<'_>, condition: &Condition) -> fmt::Result {
        match condition {
            Condition::And(_) | Condition::Or(_) => self.parenthesized(f, condition),
            _ => self.condition(f, condition),
        }
    }

    fn joined(&self, f: &mut Formatter<'_>, by: &str, all: &[Condition]) -> fmt::Result {
        for (index, one) in all.iter().enumerate() {
            f.write_str(if index > 0 { by } else { "" })?;
            self.operand(f, one)?;
        }
        Ok(())
    }

    fn numeric(&self, f: &mut Formatter<'_>, numeric: &Numeric) -> fmt::Result {
        match numeric {
            Numeric::Constant(value) => number(f, *value),
            Numeric::Property(property) => self.property(f, *property),
            Numeric::Negated(inner) => {
                f.write_char('-')?;
                self.term(f, inner)
            }
            Numeric::Chain(first, rest) => {
                self.term(f, first)?;
                for (how, operand) in rest {
                    f.write_str(match how {
                        Arithmetic::Add => " + ",
                        Arithmetic::Subtract => " - ",
                        Arithmetic::Multiply => " * ",
                        Arithmetic::Divide => " / ",
                    })?;
                    self.term(f, operand)?;
                }
                Ok(())
            }
        }
    }

    /// Of arithmetic. A chain in a chain has parentheses, needed or not.
    fn term(&self, f: &mut Formatter<'_>, numeric: &Numeric) -> fmt::Result {
        if matches!(numeric, Numeric::Chain(..)) {
            f.write_char('(')?;
            self.numeric(f, numeric)?;
            return f.write_char(')');
        }
        self.numeric(f, numeric)
    }

    fn property(&self, f: &mut Formatter<'_>, property: Property) -> fmt::Result {
        let header = self.names.get(property.index).map_or("", |name| &**name);
        if *property.reading != Reading::Plain {
            return f.write_str(name::identifier(header, property.reading).unwrap_or_default());
        }
        // Without quotes it must be read as itself.
        if is_identifier(header) && name::resolve(header) == Some((header, &Reading::Plain)) {
            return f.write_str(header);
        }
        quoted(f, '"', header)
    }
}

fn quoted(f: &mut Formatter<'_>, quote: char, text: &str) -> fmt::Result {
    f.write_char(quote)?;
    for char in text.chars() {
        if char == quote {
            f.write_char(quote)?;
        }
        f.write_char(char)?;
    }
    f.write_char(quote)
}

fn number(f: &mut Formatter<'_>, number: Number) -> fmt::Result {
    match number {
        Number::Exact(value) => write!(f, "{value}"),
        // With a point or an exponent, so that it is read as approximate again.
        Number::Approximate(value) => write!(f, "{value:?}"),
    }
}

fn pattern(f: &mut Formatter<'_>, pattern: &Pattern) -> fmt::Result {
    const ESCAPE: char = '\\';
    let special = |c: char| matches!(c, '%' | '_');
    let signs = pattern.signs();
    let escapes = signs
        .iter()
        .any(|sign| matches!(sign, Sign::Is(c) if special(*c)));
    let mut text = String::new();
    for sign in signs {
        match sign {
            Sign::Many => text.push('%'),
            Sign::One => text.push('_'),
            Sign::Is(c) => {
                if escapes && (special(*c) || *c == ESCAPE) {
                    text.push(ESCAPE);
                }
                text.push(*c);
            }
        }
    }
    quoted(f, '\'', &text)?;
    if escapes {
        write!(f, " ESCAPE '{ESCAPE}'")?;
    }
    Ok(())
}
