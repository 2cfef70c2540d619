//! What can be wrong with a frame, and the shape of every code that a peer can be told.

/// Who is at fault; decides how it is logged (the error rule of `docs/ARCHITECTURE.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The peer broke the protocol.
    Violation,
    /// The peer asked validly and is denied.
    Refusal,
    /// The peer was silent or slow for too long.
    Timeout,
}

/// One line of `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Stable, never used again; the `code` header of the ERROR and the metric label.
    pub code: &'static str,
    /// Who is at fault.
    pub class: Class,
    /// What the peer is told.
    pub text: &'static str,
}

/// Declares an enum of errors with the code, class and public text of each, so that the table and the enum are one.
macro_rules! codes {
    (
        $(#[$doc:meta])*
        $name:ident {
            $( $(#[$about:meta])* $variant:ident $({ $($field:ident: $type:ty),+ })?, $class:ident, $code:literal, $text:literal; )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        pub enum $name {
            $( $(#[$about])* #[error($text)] $variant $({ $(#[doc = "Which one."] $field: $type),+ })?, )+
        }

        impl $name {
            /// Every code of this layer, with class and text.
            pub const CODES: &'static [$crate::wire::Code] = &[
                $( $crate::wire::Code { code: $code, class: $crate::wire::Class::$class, text: $text }, )+
            ];

            /// Its line in the table.
            pub fn entry(&self) -> $crate::wire::Code {
                match self {
                    $( Self::$variant { .. } => $crate::wire::Code {
                        code: $code,
                        class: $crate::wire::Class::$class,
                        text: $text,
                    }, )+
                }
            }

            /// The stable code.
            pub fn code(&self) -> &'static str {
                self.entry().code
            }
        }
    };
}
pub(crate) use codes;

codes! {
    /// A frame that cannot be read.
    DecodeError {
        /// A line of the head is over `header_line_bytes_max`.
        HeaderLineTooLong, Refusal, "header-line-too-long",
            "a header line is longer than this broker allows (header_line_bytes_max)";
        /// The head is over `header_block_bytes_max`.
        HeaderBlockTooLong, Refusal, "header-block-too-long",
            "the headers of the frame are longer than this broker allows (header_block_bytes_max)";
        /// More than `header_count_max` header lines.
        HeaderCountTooHigh, Refusal, "too-many-headers",
            "the frame has more headers than this broker allows (header_count_max)";
        /// The body is over `body_bytes_max`.
        BodyTooLong, Refusal, "body-too-long",
            "the body of the frame is longer than this broker allows (body_bytes_max)";
        /// `content-length` is not a number.
        ContentLengthInvalid, Violation, "bad-content-length",
            "the value of content-length is not a number of octets: only digits are allowed";
        /// Something else than NUL behind a counted body.
        NulMissing, Violation, "nul-missing",
            "no NUL follows the body that content-length announces: count octets, not characters";
        /// A NUL before the empty line.
        NulInHead, Violation, "nul-in-header",
            "a NUL stands before the empty line that ends the headers: it is missing, or ends in CR LF, which is legal in 1.2 only";
        /// A header line without colon or name.
        HeaderMalformed, Violation, "bad-header",
            "a header line is not NAME:VALUE (CR LF line ends are legal in STOMP 1.2 only)";
        /// An escape that the version does not have.
        EscapeInvalid, Violation, "bad-escape",
            "a header has a backslash sequence that this version of STOMP does not define";
        /// Headers that are not UTF-8.
        NotUtf8, Violation, "not-utf8",
            "the headers of the frame are not UTF-8";
    }
}
