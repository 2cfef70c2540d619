//! Why a request is not done: a code, its status, and a line for people.

use hyper::{StatusCode, header};

use crate::api::Failed;
use crate::port::Refusal;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident;)*) => {
        /// A code of the API beside those of the core's refusals.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ApiCode {
            $($(#[$doc])* $name,)*
        }

        impl ApiCode {
            /// Every one, for `docs/api.md`.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable text.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            fn status_code(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }
        }
    };
}

codes! {
    /// A value in the path or query, or the JSON of the body, is not what it must be.
    BadRequest = "bad-request", BAD_REQUEST;
    /// There is no such path.
    PathUnknown = "path-unknown", NOT_FOUND;
    /// There is, but not with this method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED;
    /// There is no such message in the queue.
    MessageUnknown = "message-unknown", NOT_FOUND;
    /// Another backup is under way.
    BackupRunning = "backup-running", CONFLICT;
    /// The configuration that was to be read again has mistakes; nothing was changed.
    ConfigurationInvalid = "configuration-invalid", CONFLICT;
    /// The body did not come in time.
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT;
    /// The body is larger than any request needs.
    RequestTooLarge = "request-too-large", PAYLOAD_TOO_LARGE;
    /// The broker reads its store and answers nothing else yet.
    Starting = "starting", SERVICE_UNAVAILABLE;
}

impl ApiCode {
    /// Its status of HTTP.
    pub fn status(self) -> u16 {
        self.status_code().as_u16()
    }
}

/// The status of HTTP that goes with a refusal of the core.
pub fn refusal_status(refusal: Refusal) -> u16 {
    status_of(refusal).as_u16()
}

fn status_of(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::QueueUnknown | Refusal::SessionUnknown => StatusCode::NOT_FOUND,
        Refusal::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::MemoryFull | Refusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    allow: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(code: ApiCode, message: impl Into<String>) -> Self {
        Self {
            status: code.status_code(),
            code: code.code(),
            message: message.into(),
            allow: None,
        }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(ApiCode::BadRequest, message)
    }

    pub(super) fn not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(ApiCode::MethodNotAllowed, format!("this path takes {allow} only"))
        }
    }

    pub(super) fn into_response(self) -> super::Answer {
        let failed = Failed {
            code: self.code.to_owned(),
            message: self.message,
        };
        let mut response = super::json(self.status, &failed);
        if let Some(allow) = self.allow {
            response
                .headers_mut()
                .insert(header::ALLOW, header::HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: status_of(refusal),
            code: refusal.code(),
            message: refusal.to_string(),
            allow: None,
        }
    }
}
