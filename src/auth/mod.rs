//! Who somebody is: the methods that a login may be judged by, behind one trait, and what they know.
//!
//! An [`Authority`] is one reading of the users file and the keys of tokens. It never changes: reading again makes another,
//! and what was granted by the old one is asked of the new one (`stands`).
//!
//! # Invariants
//! - A login that is denied costs the same, and is told the same, whether its user exists or not.
//! - What a token says of its algorithm chooses no key: a key is for one algorithm, ours to name.
//! - Once there is a users file, or a key, nobody is anonymous where the listener does not say so.
//!
//! # Not here
//! What a principal may do. Threads, clocks, and how many logins are judged at a time: `runtime`.

mod edit;
mod error;
mod password;
mod peer;
mod slowing;
mod token;
mod users;

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Login, Method, Methods, Now, Principal, TokenAlgorithm, TokenKey};

pub use edit::UsersFile;
pub use error::AuthError;
pub use password::{Hash, PasswordRule, check_password};
pub use slowing::{Slowing, Source};
pub use users::{User, Users, is_name};

use password::Passwords;
use peer::{Certificates, UnixPeers};
use token::{Key, Tokens};

/// Where users and keys are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The users file; none, for a broker that knows no users whatever happens.
    pub users_file: Option<PathBuf>,
    /// Whether the file was asked for by name: then it has to be there.
    pub users_file_named: bool,
    /// Keys that tokens may be signed with.
    pub token_keys: Vec<TokenKey>,
    /// What `aud` of a token has to contain, if anything.
    pub token_audience: Option<String>,
    /// What `iss` of a token has to be, if anything.
    pub token_issuer: Option<String>,
}

/// One way of judging logins.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Which.
    fn method(&self) -> Method;

    /// Whether a login is for this method to judge. The first that claims one decides it.
    fn claims(&self, login: &Login) -> bool;

    /// Whether judging takes so much memory and time that it must be done elsewhere, and a few at a time.
    fn is_costly(&self) -> bool {
        false
    }

    /// Judges a login that it claims.
    fn judge(&self, login: &Login, now: Now) -> Result<Grant, Reason>;

    /// Whether what an earlier reading granted by this method holds still.
    fn stands(&self, grant: &Grant) -> bool;
}

/// A login that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whom it is.
    pub principal: Arc<Principal>,
    /// How that is known.
    pub method: Method,
    /// When it ends, in milliseconds since the Unix epoch, if it does by itself.
    pub until_wall_ms: Option<u64>,
    basis: Basis,
}

/// What a grant rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Basis {
    Nothing,
    User(Arc<User>),
    Key(Arc<Key>),
}

/// Why a login was denied: for the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It has nothing that a method of the listener could judge.
    NoCredentials,
    /// There is no such user, or the user has no password.
    UnknownUser,
    /// The password is another.
    WrongPassword,
    /// The user is disabled.
    Disabled,
    /// The token cannot be read, or its claims have the wrong form.
    TokenMalformed,
    /// No key of the algorithm that it names has signed it.
    TokenSignature,
    /// Its time is over, or has not come.
    TokenTime,
    /// It is for another audience, or of another issuer.
    TokenAudience,
    /// It is another's than `login` says.
    TokenSubject,
    /// It could not be judged.
    Fault,
}

impl Reason {
    /// As it is logged.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoCredentials => "no-credentials",
            Self::UnknownUser => "unknown-user",
            Self::WrongPassword => "wrong-password",
            Self::Disabled => "disabled",
            Self::TokenMalformed => "token-malformed",
            Self::TokenSignature => "token-signature",
            Self::TokenTime => "token-time",
            Self::TokenAudience => "token-audience",
            Self::TokenSubject => "token-subject",
            Self::Fault => "fault",
        }
    }
}

/// One reading of users and keys.
#[derive(Debug)]
pub struct Authority {
    sources: Sources,
    users: Option<Arc<Users>>,
    tokens: Arc<Tokens>,
    /// A file with hashes or a secret may be read by everybody on this machine.
    is_exposed: bool,
    /// In the order in which they are asked.
    authenticators: Vec<Box<dyn Authenticator>>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new(Sources::default(), None, Tokens::default())
    }
}

impl Authority {
    /// Reads everything. A users file that was not asked for by name may be missing.
    pub fn load(sources: Sources) -> Result<Self, AuthError> {
        let users = match &sources.users_file {
            Some(path) => Users::read(path)?,
            None => None,
        };
        if let (None, Some(path), true) = (&users, &sources.users_file, sources.users_file_named) {
            return Err(AuthError::NoUsersFile(path.clone()));
        }
        let tokens = Tokens::read(&sources)?;
        let secrets = sources
            .token_keys
            .iter()
            .filter(|key| key.algorithm == TokenAlgorithm::Hs256);
        let secrets = secrets.map(|key| &key.file).chain(&sources.users_file);
        let is_exposed = secrets.into_iter().any(|file| is_exposed(file));
        Ok(Self {
            is_exposed,
            ..Self::new(sources, users, tokens)
        })
    }

    /// Reads everything again. A users file that was there has to be there still: one that is gone opens no door.
    pub fn reload(&self) -> Result<Self, AuthError> {
        let again = Self::load(self.sources.clone())?;
        match (&self.users, &again.users, &self.sources.users_file) {
            (Some(_), None, Some(path)) => Err(AuthError::NoUsersFile(path.clone())),
            _ => Ok(again),
        }
    }

    fn new(sources: Sources, users: Option<Users>, tokens: Tokens) -> Self {
        let users = users.map(Arc::new);
        let tokens = Arc::new(tokens);
        let mut authenticators: Vec<Box<dyn Authenticator>> = Vec::new();
        if !tokens.is_empty() {
            authenticators.push(Box::new(token::Bearers {
                tokens: Arc::clone(&tokens),
                users: users.clone(),
            }));
        }
        if let Some(users) = &users {
            authenticators.push(Box::new(Certificates(Arc::clone(users))));
            authenticators.push(Box::new(UnixPeers(Arc::clone(users))));
            authenticators.push(Box::new(Passwords(Arc::clone(users))));
        }
        Self {
            sources,
            users,
            tokens,
            is_exposed: false,
            authenticators,
        }
    }

    /// Whether nobody could prove anything: there are no users and no keys.
    pub fn is_open(&self) -> bool {
        self.users.is_none() && self.tokens.is_empty()
    }

    /// How many users there are.
    pub fn user_count(&self) -> usize {
        self.users.as_ref().map_or(0, |users| users.iter().count())
    }

    /// Whether a listener asks nobody anything.
    pub fn asks_nobody(&self, methods: &Methods) -> bool {
        methods.ask_nobody(self.is_open())
    }

    /// Whether judging this login is to be done elsewhere, and a few at a time.
    pub fn is_costly(&self, login: &Login, methods: &Methods) -> bool {
        self.claimant(login, methods)
            .is_some_and(Authenticator::is_costly)
    }

    /// Judges a login by the methods of its listener.
    pub fn judge(
        &self,
        login: &Login,
        methods: &Methods,
        now: Now,
    ) -> Result<Grant, (Option<Method>, Reason)> {
        if let Some(authenticator) = self.claimant(login, methods) {
            let judged = authenticator.judge(login, now);
            return judged.map_err(|reason| (Some(authenticator.method()), reason));
        }
        let says_nothing = login.name.is_none() && login.passcode.is_none();
        if methods.take(Method::None, self.is_open()) && (says_nothing || self.asks_nobody(methods)) {
            return Ok(Grant {
                principal: Arc::default(),
                method: Method::None,
                until_wall_ms: None,
                basis: Basis::Nothing,
            });
        }
        Err((None, Reason::NoCredentials))
    }

    /// Whether what an earlier reading granted holds still.
    pub fn stands(&self, grant: &Grant, methods: &Methods) -> bool {
        if !methods.take(grant.method, self.is_open()) {
            return false;
        }
        let mut authenticators = self.authenticators.iter();
        match grant.method {
            Method::None => true,
            method => authenticators.any(|of| of.method() == method && of.stands(grant)),
        }
    }

    fn claimant(&self, login: &Login, methods: &Methods) -> Option<&dyn Authenticator> {
        let open = self.is_open();
        let mut authenticators = self.authenticators.iter().map(|of| &**of);
        authenticators.find(|of| methods.take(of.method(), open) && of.claims(login))
    }

    /// What is odd, and no error: for the log, at each reading.
    pub fn notices(&self) -> Vec<&'static str> {
        let mut notices = Vec::new();
        if self.is_exposed {
            notices.push(
                "the users file, or the secret of tokens, can be read by everybody on this machine: `chmod o-rwx` it",
            );
        }
        if self.users.as_ref().is_some_and(|users| users.has_mixed_costs()) {
            notices.push(
                "hashes of the users file differ in cost: how long a refusal takes may tell who is a user; \
                 `steadfast user passwd` makes them alike",
            );
        }
        if !self.tokens.is_empty() && self.sources.token_audience.is_none() {
            notices.push(
                "tokens are accepted whatever audience they are for: security.jwt_audience names the one to demand",
            );
        }
        notices
    }
}

/// Whether everybody may read a file.
fn is_exposed(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|file| file.permissions().mode() & 0o007 != 0)
}

/// A grant of a user of the file.
fn grant_user(user: &Arc<User>, method: Method) -> Result<Grant, Reason> {
    if user.disabled {
        return Err(Reason::Disabled);
    }
    Ok(Grant {
        principal: Arc::new(Principal {
            name: Some(user.name.clone()),
            groups: user.groups.clone(),
        }),
        method,
        until_wall_ms: None,
        basis: Basis::User(Arc::clone(user)),
    })
}

#[cfg(test)]
mod tests;
