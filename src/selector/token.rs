//! The words and signs of a selector.

use super::error::Expected;
use super::number::Number;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

const WORDS: &[(&str, Word)] = &[
    ("AND", Word::And),
    ("BETWEEN", Word::Between),
    ("ESCAPE", Word::Escape),
    ("FALSE", Word::False),
    ("IN", Word::In),
    ("IS", Word::Is),
    ("LIKE", Word::Like),
    ("NOT", Word::Not),
    ("NULL", Word::Null),
    ("OR", Word::Or),
    ("TRUE", Word::True),
];

#[derive(Debug, Clone)]
pub(super) enum Token<'t> {
    Word(Word),
    /// A name without quotes.
    Identifier(&'t str),
    /// A name in double quotes, without them.
    Quoted(String),
    /// A string, without its quotes.
    Text(String),
    Number(Number),
    /// One of `= <> < <= > >= + - * / ( ) ,`.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: &[&str] = &["<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "(", ")", ","];

/// What is wrong, at which byte.
pub(super) type Wrong = (usize, Expected);

/// Other brokers' words before a selector. What the second asks for is so anyway.
const HYPHENATED: &str = "hyphenated_props:";
const CONVERTED: &str = "convert_string_expressions:";

pub(super) struct Lexer<'t> {
    bytes_total: usize,
    rest: &'t str,
    /// A hyphen within a name belongs to it.
    hyphenated: bool,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let (mut rest, mut hyphenated) = (text, false);
        loop {
            if let Some(after) = rest.strip_prefix(HYPHENATED) {
                (rest, hyphenated) = (after, true);
            } else if let Some(after) = rest.strip_prefix(CONVERTED) {
                rest = after;
            } else {
                break;
            }
        }
        Self {
            bytes_total: text.len(),
            rest,
            hyphenated,
        }
    }

    /// The byte that is read next.
    fn at(&self) -> usize {
        self.bytes_total - self.rest.len()
    }

    /// The next token, and the byte it begins at.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'t>), Wrong> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\x0c', '\r', '\n']);
        let at = self.at();
        let Some(first) = self.rest.chars().next() else {
            return Ok((at, Token::End));
        };
        let token = match first {
            '\'' => Token::Text(self.quoted('\'').ok_or((at, Expected::Quote))?),
            '"' => {
                let name = self.quoted('"').ok_or((at, Expected::DoubleQuote))?;
                if name.is_empty() {
                    return Err((at, Expected::QuotedName));
                }
                Token::Quoted(name)
            }
            first if begins_name(first) => {
                let name = self.identifier()?;
                let word = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
                word.map_or(Token::Identifier(name), |(_, word)| Token::Word(*word))
            }
            first if first.is_ascii_digit() || first == '.' => Token::Number(self.number()?),
            _ => {
                // In SQL the rest of the line would be a comment.
                if self.rest.starts_with("--") {
                    return Err((at + 1, Expected::SpacedSigns));
                }
                let sign = SIGNS.iter().find(|sign| self.rest.starts_with(**sign));
                let sign = sign.ok_or((at, Expected::Continuation))?;
                self.skip(sign.len());
                Token::Sign(sign)
            }
        };
        Ok((at, token))
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// What stands in quotes, in which two quotes are one.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.rest.strip_prefix(quote)?;
        loop {
            let (part, after) = rest.split_once(quote)?;
            text.push_str(part);
            let Some(more) = after.strip_prefix(quote) else {
                self.rest = after;
                return Some(text);
            };
            text.push(quote);
            rest = more;
        }
    }

    fn identifier(&mut self) -> Result<&'t str, Wrong> {
        let text = self.rest;
        let mut chars = text.chars().peekable();
        let mut bytes = 0;
        while let Some(char) = chars.next() {
            let joins = match char {
                // No operator is a dot, so one between the letters of a name means nothing else.
                '.' => chars.peek().is_some_and(|next| continues_name(*next)),
                '-' if self.hyphenated => chars.peek().is_some_and(|next| continues_name(*next)),
                // The standard has a difference here, and most who write it mean a header.
                '-' if chars.peek().is_some_and(|next| begins_name(*next)) => {
                    return Err((self.at() + bytes, Expected::HyphenMeaning));
                }
                char => continues_name(char),
            };
            if !joins {
                break;
            }
            bytes += char.len_utf8();
        }
        self.skip(bytes);
        Ok(text.get(..bytes).unwrap_or_default())
    }

    /// A literal of Java, but for octal ones: a header that says 017 is seventeen.
    fn number(&mut self) -> Result<Number, Wrong> {
        let at = self.at();
        let text = self.rest;
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            let after = digits.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            let digits = digits.strip_suffix(after).unwrap_or_default();
            if digits.is_empty() {
                return Err((at + "0x".len(), Expected::HexDigit));
            }
            let exact = i64::from_str_radix(digits, 16).map_err(|_| (at, Expected::NumberInRange))?;
            self.rest = after.strip_prefix(['l', 'L']).unwrap_or(after);
            return Ok(Number::Exact(exact));
        }
        let digits = |text: &'t str| text.trim_start_matches(|c: char| c.is_ascii_digit());
        let mut after = digits(text);
        let whole = text.strip_suffix(after).unwrap_or_default();
        if let Some(fraction) = after.strip_prefix('.') {
            after = digits(fraction);
        }
        if let Some(exponent) = after.strip_prefix(['e', 'E']) {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if exponent.starts_with(|c: char| c.is_ascii_digit()) {
                after = digits(exponent);
            }
        }
        let literal = text.strip_suffix(after).unwrap_or_default();
        let exact = literal.len() == whole.len();
        if exact && whole.len() > 1 && whole.starts_with('0') {
            return Err((at, Expected::DecimalNumber));
        }
        let suffixed = if exact {
            after.strip_prefix(['l', 'L'])
        } else {
            None
        };
        self.rest = suffixed.unwrap_or(after);
        if literal == "." {
            return Err((at, Expected::Value));
        }
        Number::read(literal).ok_or((at, Expected::NumberInRange))
    }
}

fn begins_name(char: char) -> bool {
    char.is_alphabetic() || matches!(char, '_' | '$')
}

fn continues_name(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '$')
}

/// Whether a name needs no quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut lexer = Lexer {
        bytes_total: name.len(),
        rest: name,
        hyphenated: false,
    };
    matches!(lexer.next(), Ok((0, Token::Identifier(whole))) if whole.len() == name.len())
}
