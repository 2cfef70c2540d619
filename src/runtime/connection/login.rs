//! The login of a connection: judged once, and asked of each later reading of users and keys; each is a line of audit.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::logins::Reading;
use super::{Connection, Life};
use crate::base::{Method, Now};
use crate::session::{Denied, Judged, Phase};
use crate::telemetry::AUDIT;

impl<S> Connection<S> {
    /// Has a login judged, if there is one, and tells the session. True if it was told.
    pub(super) fn judge(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let peer = self.attendance.present.peer;
        if let Some(login) = self.session.poll_login() {
            let logins = Arc::clone(&self.shared.logins);
            self.judging = Some(Box::pin(logins.judge(login, Arc::clone(&self.doorstep), peer)));
        }
        if self.session.phase() != Phase::Open && self.judging.take().is_some() {
            let (session, listener) = (self.seat.session().0, &*self.doorstep.listener);
            tracing::info!(target: AUDIT, session, %peer, listener, "login not judged in time");
        }
        let Some(Poll::Ready(judgement)) = self.judging.as_mut().map(|judging| judging.as_mut().poll(cx))
        else {
            return false;
        };
        self.judging = None;
        self.reading = judgement.reading;
        let session = self.seat.session().0;
        let listener = &*self.doorstep.listener;
        let judged = match judgement.verdict {
            Ok(grant) => {
                let user = grant.principal.name.as_deref();
                let method = grant.method.name();
                tracing::info!(target: AUDIT, session, user, method, %peer, listener, "login accepted");
                if let Some(user) = user {
                    // Only the connection itself sets it, and a login is judged once.
                    let _ = self.attendance.present.user.set(user.into());
                }
                let until = grant.until_wall_ms;
                let until = until.map(|until| now.mono_ms.saturating_add(until.saturating_sub(now.wall_ms)));
                let principal = Arc::clone(&grant.principal);
                self.grant = Some(grant);
                Ok(Judged { principal, until })
            }
            Err((method, reason)) => {
                let user = judgement.name.as_deref();
                let method = method.map_or("none", Method::name);
                let reason = reason.code();
                tracing::info!(target: AUDIT, session, user, method, %peer, listener, reason, "login denied");
                self.shared.stats.login_denied_count.add(1);
                Err(Denied)
            }
        };
        self.session.handle_judged(judged, now);
        self.attendance.present.note_version(|| self.session.version());
        true
    }

    /// Users or keys were read again: whether it may still be in.
    pub(super) fn ask_again(&mut self) {
        let Reading { number, authority } = self.shared.logins.current();
        self.reading = number;
        let methods = &self.doorstep.methods;
        let stands = match &self.grant {
            Some(grant) => authority.stands(grant, methods),
            // Who is not in yet will be judged by what holds then.
            None => self.is_asked || authority.asks_nobody(methods),
        };
        if !stands && self.life == Life::Open {
            let user = self
                .grant
                .as_ref()
                .and_then(|grant| grant.principal.name.as_deref());
            let (session, peer) = (self.seat.session().0, self.attendance.present.peer);
            tracing::info!(target: AUDIT, session, user, %peer, "login revoked");
            self.session.handle_revoked();
        }
    }
}
