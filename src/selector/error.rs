//! What can be wrong with a selector.

use std::fmt;

/// Why a text is no selector. What is said holds nothing of the text but a place in it, so it may be told to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Over `selector_bytes_max`.
    #[error("the selector has more than {bytes_max} bytes (selector_bytes_max)")]
    TooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// Over `selector_depth_max`.
    #[error("character {at}: more than {depth_max} parentheses within each other (selector_depth_max)")]
    TooDeep {
        /// The parenthesis that is one too many; characters count from 1.
        at: usize,
        /// The limit.
        depth_max: usize,
    },
    /// Something else should stand there.
    #[error("character {at}: expected {expected}")]
    Syntax {
        /// Where; characters count from 1, and the one behind the text is its end.
        at: usize,
        /// What.
        expected: Expected,
    },
}

/// What should stand where something else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A header, a literal or a parenthesis.
    Value,
    /// A value, and NULL is none.
    IsNull,
    /// Something that is true or false.
    Condition,
    /// Something to calculate with or to compare by size.
    Number,
    /// A name, as IN, LIKE and IS ask for.
    Header,
    /// What can follow a whole condition.
    Continuation,
    /// AND of a BETWEEN.
    BetweenAnd,
    /// What can follow NOT behind a value.
    NotOperator,
    /// NULL or NOT NULL behind IS.
    Null,
    /// (
    ListOpen,
    /// A literal of an IN list.
    Literal,
    /// Comma or ) in an IN list.
    ListContinuation,
    /// )
    Close,
    /// The pattern of LIKE.
    Pattern,
    /// The character of ESCAPE.
    EscapeCharacter,
    /// What an escape character may stand before.
    Escaped,
    /// A shorter stretch with `_` in a pattern.
    ShorterStretch,
    /// ' at the end of a string.
    Quote,
    /// " at the end of a name.
    DoubleQuote,
    /// A character in "".
    QuotedName,
    /// A number without leading zero.
    DecimalNumber,
    /// A number within the range of its kind.
    NumberInRange,
    /// A hexadecimal digit.
    HexDigit,
    /// Spaces or quotes: a name with a hyphen, or a difference.
    HyphenMeaning,
    /// A space between two signs.
    SpacedSigns,
    /// A JMS name that a STOMP header stands for.
    KnownJmsName,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "a header name, a literal or (",
            Self::IsNull => "a value; whether a header is missing is asked by IS NULL",
            Self::Condition => "a condition",
            Self::Number => "a number",
            Self::Header => "a header name before IS, IN and LIKE",
            Self::Continuation => "an operator, AND, OR, ) or the end",
            Self::BetweenAnd => "AND of BETWEEN",
            Self::NotOperator => "BETWEEN, IN or LIKE",
            Self::Null => "NULL or NOT NULL",
            Self::ListOpen => "( of IN",
            Self::Literal => "a string or a number",
            Self::ListContinuation => "a comma or )",
            Self::Close => "an operator or )",
            Self::Pattern => "a pattern in single quotes",
            Self::EscapeCharacter => "one character in single quotes",
            Self::Escaped => {
                "%, _ or the escape character itself behind each escape character of the pattern"
            }
            Self::ShorterStretch => "a pattern with at most 64 characters between two %, if _ is one of them",
            Self::Quote => "the single quote that ends this string",
            Self::DoubleQuote => "the double quote that ends this name",
            Self::QuotedName => "a name between the double quotes",
            Self::DecimalNumber => "a number without leading zeros",
            Self::NumberInRange => "a smaller number",
            Self::HexDigit => "a hexadecimal digit",
            Self::HyphenMeaning => "spaces around - in a difference, or double quotes around a name with -",
            Self::SpacedSigns => "a space between two signs",
            Self::KnownJmsName => "a JMS name that a stored header stands for",
        })
    }
}
