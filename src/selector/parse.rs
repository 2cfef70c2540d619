//! From text to tree: recursive descent, in which only parentheses recurse. Precedence as in section 3.8.1.1: signs, `*` and
//! `/`, `+` and `-`, comparisons, NOT, AND, OR.
//!
//! Kinds are judged here: what would compare a number with a string, or calculate with a truth, can never be true, and is an
//! error of the text. A header may be of any kind; which one is asked for is in the tree.

use super::SelectorLimits;
use super::error::{Expected, SelectorError};
use super::like::{Pattern, Sign};
use super::name;
use super::name::Reading;
use super::number::Arithmetic;
use super::token::{Lexer, Token, Word, Wrong};
use super::tree::{Comparison, Condition, Literal, Names, Numeric, Property};

/// A part of the text, and the byte it begins at.
struct Part {
    at: usize,
    value: Value,
}

enum Value {
    Condition(Condition),
    Numeric(Numeric),
    Text(String),
    Property(Property),
}

/// Why parsing ended early; places are bytes.
enum Stop {
    Wrong(Wrong),
    TooDeep(usize),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The next token.
    token: Token<'t>,
    /// Where it begins.
    at: usize,
    /// Open parentheses.
    depth: usize,
    depth_max: usize,
    names: Vec<Box<str>>,
}

pub(super) fn parse(text: &str, limits: SelectorLimits) -> Result<(Condition, Names), SelectorError> {
    if text.len() > limits.selector_bytes_max {
        return Err(SelectorError::TooLong {
            bytes_max: limits.selector_bytes_max,
        });
    }
    let mut parser = Parser {
        lexer: Lexer::new(text),
        token: Token::End,
        at: 0,
        depth: 0,
        depth_max: limits.selector_depth_max,
        names: Vec::new(),
    };
    let place = |byte: usize| 1 + text.char_indices().take_while(|(at, _)| *at < byte).count();
    match parser.whole() {
        Ok(condition) => Ok((condition, parser.names.into())),
        Err(Stop::Wrong((at, expected))) => Err(SelectorError::Syntax {
            at: place(at),
            expected,
        }),
        Err(Stop::TooDeep(at)) => Err(SelectorError::TooDeep {
            at: place(at),
            depth_max: limits.selector_depth_max,
        }),
    }
}

impl<'t> Parser<'t> {
    fn whole(&mut self) -> Result<Condition, Stop> {
        self.advance()?;
        if matches!(self.token, Token::End) {
            return Ok(Condition::Constant(true));
        }
        let whole = self.either()?;
        if !matches!(self.token, Token::End) {
            return Err(self.wrong(Expected::Continuation));
        }
        Ok(condition(whole)?)
    }

    fn advance(&mut self) -> Result<Token<'t>, Stop> {
        let (at, token) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn wrong(&self, expected: Expected) -> Stop {
        Stop::Wrong((self.at, expected))
    }

    fn is_word(&self, word: Word) -> bool {
        matches!(&self.token, Token::Word(found) if *found == word)
    }

    fn takes_word(&mut self, word: Word) -> Result<bool, Stop> {
        let found = self.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn takes_sign(&mut self, sign: &str) -> Result<bool, Stop> {
        let found = matches!(self.token, Token::Sign(found) if found == sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn either(&mut self) -> Result<Part, Stop> {
        let first = self.both()?;
        if !self.is_word(Word::Or) {
            return Ok(first);
        }
        let at = first.at;
        let mut all = vec![condition(first)?];
        while self.takes_word(Word::Or)? {
            all.push(condition(self.both()?)?);
        }
        let all = spliced(all, |one| match one {
            Condition::Or(inner) => Ok(inner),
            other => Err(other),
        });
        Ok(truth(at, Condition::Or(all)))
    }

    fn both(&mut self) -> Result<Part, Stop> {
        let first = self.negation()?;
        if !self.is_word(Word::And) {
            return Ok(first);
        }
        let at = first.at;
        let mut all = vec![condition(first)?];
        while self.takes_word(Word::And)? {
            all.push(condition(self.negation()?)?);
        }
        let all = spliced(all, |one| match one {
            Condition::And(inner) => Ok(inner),
            other => Err(other),
        });
        Ok(truth(at, Condition::And(all)))
    }

    fn negation(&mut self) -> Result<Part, Stop> {
        let at = self.at;
        let mut nots = 0_usize;
        while self.takes_word(Word::Not)? {
            nots += 1;
        }
        let part = self.comparison()?;
        if nots == 0 {
            return Ok(part);
        }
        let inner = condition(part)?;
        Ok(truth(at, if nots % 2 == 1 { inner.not() } else { inner }))
    }

    fn comparison(&mut self) -> Result<Part, Stop> {
        let left = self.sum()?;
        let (comparison, negated) = match self.token {
            Token::Sign("=") => (Comparison::Equal, false),
            Token::Sign("<>") => (Comparison::Equal, true),
            Token::Sign("<") => (Comparison::Less, false),
            Token::Sign("<=") => (Comparison::LessOrEqual, false),
            Token::Sign(">") => (Comparison::Greater, false),
            Token::Sign(">=") => (Comparison::GreaterOrEqual, false),
            _ => return self.named_comparison(left),
        };
        self.advance()?;
        let at = left.at;
        let right = self.sum()?;
        let compared = if comparison == Comparison::Equal {
            equal(left, right)?
        } else {
            Condition::Compare(numeric(left)?, comparison, numeric(right)?)
        };
        Ok(truth(at, if negated { compared.not() } else { compared }))
    }

    /// What may follow a value and begins with a word: IS, BETWEEN, IN, LIKE, the latter three also after NOT.
    fn named_comparison(&mut self, left: Part) -> Result<Part, Stop> {
        let at = left.at;
        if self.takes_word(Word::Is)? {
            let negated = self.takes_word(Word::Not)?;
            if !self.takes_word(Word::Null)? {
                return Err(self.wrong(Expected::Null));
            }
            let null = Condition::IsNull(property(left)?);
            return Ok(truth(at, if negated { null.not() } else { null }));
        }
        let negated = self.takes_word(Word::Not)?;
        let compared = if self.takes_word(Word::Between)? {
            let low = self.sum()?;
            if !self.takes_word(Word::And)? {
                return Err(self.wrong(Expected::BetweenAnd));
            }
            let high = self.sum()?;
            Condition::Between(Box::new([numeric(left)?, numeric(low)?, numeric(high)?]))
        } else if self.takes_word(Word::In)? {
            let property = property(left)?;
            Condition::In(property, self.list()?)
        } else if self.takes_word(Word::Like)? {
            let property = property(left)?;
            Condition::Like(property, Box::new(self.pattern()?))
        } else if negated {
            return Err(self.wrong(Expected::NotOperator));
        } else {
            return Ok(left);
        };
        Ok(truth(at, if negated { compared.not() } else { compared }))
    }

    fn list(&mut self) -> Result<Box<[Literal]>, Stop> {
        if !self.takes_sign("(")? {
            return Err(self.wrong(Expected::ListOpen));
        }
        let mut literals = Vec::new();
        loop {
            let negative = self.takes_sign("-")?;
            let positive = !negative && self.takes_sign("+")?;
            literals.push(match &mut self.token {
                Token::Number(number) if negative => Literal::Number(number.negate()),
                Token::Number(number) => Literal::Number(*number),
                Token::Text(text) if !negative && !positive => {
                    Literal::Text(std::mem::take(text).into_boxed_str())
                }
                _ => return Err(self.wrong(Expected::Literal)),
            });
            self.advance()?;
            if self.takes_sign(")")? {
                return Ok(literals.into());
            }
            if !self.takes_sign(",")? {
                return Err(self.wrong(Expected::ListContinuation));
            }
        }
    }

    fn pattern(&mut self) -> Result<Pattern, Stop> {
        let at = self.at;
        if !matches!(self.token, Token::Text(_)) {
            return Err(self.wrong(Expected::Pattern));
        }
        let Token::Text(text) = self.advance()? else {
            return Err(Stop::Wrong((at, Expected::Pattern)));
        };
        let mut escape = None;
        if self.takes_word(Word::Escape)? {
            let Token::Text(character) = &self.token else {
                return Err(self.wrong(Expected::EscapeCharacter));
            };
            let mut characters = character.chars();
            escape = characters.next();
            if escape.is_none() || characters.next().is_some() {
                return Err(self.wrong(Expected::EscapeCharacter));
            }
            self.advance()?;
        }
        let mut signs = Vec::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            signs.push(match character {
                character if Some(character) == escape => {
                    let escaped = characters.next();
                    let known = |c: &char| matches!(c, '%' | '_') || Some(*c) == escape;
                    Sign::Is(escaped.filter(known).ok_or((at, Expected::Escaped))?)
                }
                '%' => Sign::Many,
                '_' => Sign::One,
                character => Sign::Is(character),
            });
        }
        Pattern::new(signs).ok_or(Stop::Wrong((at, Expected::ShorterStretch)))
    }

    fn sum(&mut self) -> Result<Part, Stop> {
        let signs = [("+", Arithmetic::Add), ("-", Arithmetic::Subtract)];
        self.chain(signs, Self::product)
    }

    fn product(&mut self) -> Result<Part, Stop> {
        let signs = [("*", Arithmetic::Multiply), ("/", Arithmetic::Divide)];
        self.chain(signs, Self::signed)
    }

    fn chain(
        &mut self,
        signs: [(&str, Arithmetic); 2],
        operand: fn(&mut Self) -> Result<Part, Stop>,
    ) -> Result<Part, Stop> {
        let first = operand(self)?;
        let at = first.at;
        let mut rest = Vec::new();
        'operators: loop {
            for (sign, how) in signs {
                if self.takes_sign(sign)? {
                    rest.push((how, numeric(operand(self)?)?));
                    continue 'operators;
                }
            }
            break;
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut first = numeric(first)?;
        // Parentheses around the beginning of a chain say nothing.
        if let Numeric::Chain(_, begun) = &first
            && begun
                .iter()
                .all(|(how, _)| signs.iter().any(|(_, own)| own == how))
            && let Numeric::Chain(earliest, begun) = first
        {
            first = *earliest;
            rest.splice(0..0, begun);
        }
        let chain = Numeric::Chain(Box::new(first), rest.into());
        Ok(Part {
            at,
            value: Value::Numeric(chain),
        })
    }

    fn signed(&mut self) -> Result<Part, Stop> {
        let at = self.at;
        let (mut signs, mut negative) = (false, false);
        loop {
            if self.takes_sign("-")? {
                negative = !negative;
            } else if !self.takes_sign("+")? {
                break;
            }
            signs = true;
        }
        let part = self.primary()?;
        if !signs {
            return Ok(part);
        }
        let number = numeric(part)?;
        let number = if negative { number.negate() } else { number };
        Ok(Part {
            at,
            value: Value::Numeric(number),
        })
    }

    fn primary(&mut self) -> Result<Part, Stop> {
        let at = self.at;
        if self.takes_sign("(")? {
            if self.depth == self.depth_max {
                return Err(Stop::TooDeep(at));
            }
            self.depth += 1;
            let inner = self.either()?;
            if !self.takes_sign(")")? {
                return Err(self.wrong(Expected::Close));
            }
            self.depth -= 1;
            return Ok(Part { at, ..inner });
        }
        let value = match &mut self.token {
            Token::Number(number) => Value::Numeric(Numeric::Constant(*number)),
            Token::Text(text) => Value::Text(std::mem::take(text)),
            Token::Word(Word::True) => Value::Condition(Condition::Constant(true)),
            Token::Word(Word::False) => Value::Condition(Condition::Constant(false)),
            Token::Word(Word::Null) => return Err(self.wrong(Expected::IsNull)),
            Token::Quoted(name) => {
                let name = std::mem::take(name);
                Value::Property(self.property(&name, &Reading::Plain))
            }
            Token::Identifier(name) => {
                let name = *name;
                let (header, reading) = name::resolve(name).ok_or((at, Expected::KnownJmsName))?;
                Value::Property(self.property(header, reading))
            }
            Token::Word(_) | Token::Sign(_) | Token::End => return Err(self.wrong(Expected::Value)),
        };
        self.advance()?;
        Ok(Part { at, value })
    }

    fn property(&mut self, header: &str, reading: &'static Reading) -> Property {
        let known = self.names.iter().position(|name| **name == *header);
        let index = known.unwrap_or_else(|| {
            self.names.push(header.into());
            self.names.len() - 1
        });
        Property { index, reading }
    }
}

fn truth(at: usize, condition: Condition) -> Part {
    Part {
        at,
        value: Value::Condition(condition),
    }
}

/// AND within AND, and OR within OR, are one: `inner` opens such a part, or gives it back.
fn spliced(
    all: Vec<Condition>,
    inner: impl Fn(Condition) -> Result<Box<[Condition]>, Condition>,
) -> Box<[Condition]> {
    let mut flat = Vec::with_capacity(all.len());
    for one in all {
        match inner(one) {
            Ok(parts) => flat.extend(parts),
            Err(other) => flat.push(other),
        }
    }
    flat.into()
}

fn condition(part: Part) -> Result<Condition, Wrong> {
    match part.value {
        Value::Condition(condition) => Ok(condition),
        Value::Property(property) => Ok(Condition::Flag(property)),
        Value::Numeric(_) | Value::Text(_) => Err((part.at, Expected::Condition)),
    }
}

fn numeric(part: Part) -> Result<Numeric, Wrong> {
    match part.value {
        Value::Numeric(numeric) => Ok(numeric),
        Value::Property(property) => Ok(Numeric::Property(property)),
        Value::Condition(_) | Value::Text(_) => Err((part.at, Expected::Number)),
    }
}

fn property(part: Part) -> Result<Property, Wrong> {
    match part.value {
        Value::Property(property) => Ok(property),
        Value::Condition(_) | Value::Numeric(_) | Value::Text(_) => Err((part.at, Expected::Header)),
    }
}

/// What `=` asks follows from what stands on its sides: for texts, numbers or truths. To be equal to TRUE is to be true.
fn equal(left: Part, right: Part) -> Result<Condition, Wrong> {
    let (left_at, right_at) = (left.at, right.at);
    let part = |at, value| Part { at, value };
    let compared_to = |constant: bool, other: Part| {
        let other = condition(other)?;
        Ok(if constant { other } else { other.not() })
    };
    match (left.value, right.value) {
        (Value::Property(left), Value::Property(right)) => Ok(Condition::SameProperty(left, right)),
        (Value::Property(property), Value::Text(text)) | (Value::Text(text), Value::Property(property)) => {
            Ok(Condition::SameText(property, text.into()))
        }
        (Value::Text(left), Value::Text(right)) => Ok(Condition::Constant(left == right)),
        (Value::Condition(Condition::Constant(constant)), right) => {
            compared_to(constant, part(right_at, right))
        }
        (left, Value::Condition(Condition::Constant(constant))) => compared_to(constant, part(left_at, left)),
        (left @ Value::Condition(_), right) | (left, right @ Value::Condition(_)) => {
            let both = (condition(part(left_at, left))?, condition(part(right_at, right))?);
            Ok(Condition::SameTruth(Box::new(both)))
        }
        (left, right) => Ok(Condition::Compare(
            numeric(part(left_at, left))?,
            Comparison::Equal,
            numeric(part(right_at, right))?,
        )),
    }
}
