//! The judgement of a login: between CONNECT and its answer.
//!
//! ```text
//!            CONNECT            poll_login            handle_judged
//!   Awaited ---------> Asked ---------------> Out ---------------------> Done (CONNECTED), or the end (ERROR)
//! ```
//! `Open` stays what it is: nobody is asked who they are, and CONNECT is answered at once.
//!
//! # Not here
//! Who may come in: whoever drives the session judges, and takes the time that it takes.

use std::sync::Arc;

use super::error::Violation;
use super::rules::Rules;
use super::{Identity, Login, Now, Principal, Session};
use crate::base::Secret;

/// How far a login is.
#[derive(Debug)]
pub(super) enum Judging {
    /// Every login is accepted, unread.
    Open,
    /// No CONNECT yet.
    Awaited,
    /// CONNECT came.
    Asked(Box<(Login, Waiting)>),
    /// Somebody judges.
    Out(Box<Waiting>),
    /// It was accepted.
    Done,
}

/// What CONNECT agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    pub(super) rules: &'static Rules,
    /// What the client can send and wants to receive, where there are heart-beats.
    pub(super) theirs: Option<(u64, u64)>,
}

/// What is done with the judgement.
#[derive(Debug)]
pub(super) struct Waiting {
    agreed: Agreed,
    /// Of CONNECT, for the ERROR; escaped.
    receipt_id: Option<Vec<u8>>,
}

/// A login that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Whom the session acts for from now on.
    pub principal: Arc<Principal>,
    /// The monotonic time at which the session ends with an ERROR; `None` = the login holds as long as it lasts.
    pub until: Option<u64>,
}

/// A login that was not accepted. Why is nobody's business but the log's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied;

impl Judging {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// CONNECT has come. Empty is as good as absent: some clients always send both headers.
    pub(super) fn asked(
        login: Option<&[u8]>,
        passcode: Option<&[u8]>,
        identity: Identity,
        agreed: Agreed,
        receipt_id: Option<Vec<u8>>,
    ) -> Self {
        let login = Login {
            name: login.filter(|name| !name.is_empty()).map(Box::from),
            passcode: passcode.filter(|passcode| !passcode.is_empty()).map(Secret::new),
            identity,
        };
        Self::Asked(Box::new((login, Waiting { agreed, receipt_id })))
    }
}

impl Session {
    /// The session of a peer whose login is judged before anything else is done.
    pub fn judged(self) -> Self {
        Self {
            judging: Judging::Awaited,
            ..self
        }
    }

    /// The login that waits to be judged, once.
    pub fn poll_login(&mut self) -> Option<Login> {
        match std::mem::replace(&mut self.judging, Judging::Done) {
            Judging::Asked(asked) if self.end.is_none() => {
                let (login, waiting) = *asked;
                self.judging = Judging::Out(Box::new(waiting));
                Some(login)
            }
            other => {
                self.judging = other;
                None
            }
        }
    }

    /// The judgement of what [`Session::poll_login`] gave: CONNECTED, or the one ERROR. Without effect where the session has
    /// ended meanwhile.
    pub fn handle_judged(&mut self, judgement: Result<Judged, Denied>, now: Now) {
        let Judging::Out(waiting) = std::mem::replace(&mut self.judging, Judging::Done) else {
            panic!("a login is judged once, after it was asked for");
        };
        if self.end.is_some() {
            return;
        }
        match judgement {
            Ok(Judged { principal, until }) => {
                self.principal = principal;
                self.login_until = until;
                // What the client sent meanwhile was not read: its silence is counted from now.
                self.heart_beat.handle_received(now.mono_ms);
                self.welcome(&waiting.agreed, now);
            }
            Err(Denied) => self.fail(Violation::LoginFailed.into(), waiting.receipt_id),
        }
    }

    /// The login no longer holds: ERROR, in its place in line, then close.
    pub fn handle_revoked(&mut self) {
        self.fail(Violation::LoginRevoked.into(), None);
    }

    /// Whether a login waits for its judgement.
    pub(super) fn is_judged_now(&self) -> bool {
        matches!(self.judging, Judging::Asked(_) | Judging::Out(_))
    }
}
