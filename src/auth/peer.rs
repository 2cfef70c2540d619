//! Users known by what the transport proved: a certificate, or the user that a local process runs as.

use std::sync::Arc;

use super::{Authenticator, Basis, Grant, Reason, User, Users, grant_user};
use crate::base::{Identity, Login, Method, Now};

/// Whoever is known already may say so, or say nothing; another name is another login.
fn agrees(login: &Login, user: &User) -> bool {
    login
        .name
        .as_deref()
        .is_none_or(|name| name == user.name.as_bytes())
}

/// Users by the name in their certificate.
#[derive(Debug)]
pub(super) struct Certificates(pub(super) Arc<Users>);

impl Certificates {
    fn user(&self, login: &Login) -> Option<&Arc<User>> {
        match &login.identity {
            Identity::Certificate { login: Some(name) } => self.0.find(name),
            _ => None,
        }
    }
}

impl Authenticator for Certificates {
    fn method(&self) -> Method {
        Method::Certificate
    }

    fn claims(&self, login: &Login) -> bool {
        self.user(login).is_some_and(|user| agrees(login, user))
    }

    fn judge(&self, login: &Login, _now: Now) -> Result<Grant, Reason> {
        grant_user(self.user(login).ok_or(Reason::UnknownUser)?, Method::Certificate)
    }

    fn stands(&self, grant: &Grant) -> bool {
        matches!(&grant.basis, Basis::User(user) if self.0.has(user))
    }
}

/// Users by the `uid` that their processes run as.
#[derive(Debug)]
pub(super) struct UnixPeers(pub(super) Arc<Users>);

impl UnixPeers {
    fn user(&self, login: &Login) -> Option<&Arc<User>> {
        match &login.identity {
            Identity::Local { uid, .. } => self.0.with_uid(*uid),
            _ => None,
        }
    }
}

impl Authenticator for UnixPeers {
    fn method(&self) -> Method {
        Method::Unix
    }

    fn claims(&self, login: &Login) -> bool {
        self.user(login).is_some_and(|user| agrees(login, user))
    }

    fn judge(&self, login: &Login, _now: Now) -> Result<Grant, Reason> {
        grant_user(self.user(login).ok_or(Reason::UnknownUser)?, Method::Unix)
    }

    fn stands(&self, grant: &Grant) -> bool {
        matches!(&grant.basis, Basis::User(user) if self.0.has(user))
    }
}
