//! Passwords: argon2id, as OWASP advises (19 MiB, two passes, one lane).

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, Version};

use super::{Authenticator, Basis, Grant, Reason, Users, grant_user};
use crate::base::{Login, Method, Now, Secret};

/// What a new password has at least and at most.
const CHARACTER_COUNT_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1_024;

/// What a hash may cost at most: a file must not be able to take all memory, nor the time of a login deadline.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// A password as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(PasswordHash);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// What a new password must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// Too short.
    #[error("a password has {CHARACTER_COUNT_MIN} characters at least")]
    Short,
    /// Too long.
    #[error("a password has {PASSWORD_BYTES_MAX} bytes at most")]
    Long,
    /// Not text, or what no header of CONNECT can carry in every version.
    #[error("a password is text without control characters and without spaces around it")]
    Form,
}

/// Refuses a new password that is weak by its length, or that some client could not send.
pub fn check_password(password: &Secret) -> Result<(), PasswordRule> {
    let text = std::str::from_utf8(password.reveal()).map_err(|_| PasswordRule::Form)?;
    if text.trim() != text || text.chars().any(char::is_control) {
        Err(PasswordRule::Form)
    } else if text.chars().count() < CHARACTER_COUNT_MIN {
        Err(PasswordRule::Short)
    } else if text.len() > PASSWORD_BYTES_MAX {
        Err(PasswordRule::Long)
    } else {
        Ok(())
    }
}

impl Hash {
    /// Hashes a password. The salt must be nobody else's.
    pub fn of(password: &Secret, salt: &[u8; 16]) -> Self {
        let hash = argon2().hash_password_with_salt(password.reveal(), salt);
        Self(hash.expect("a salt of 16 bytes and a short password can be hashed"))
    }

    /// Reads a hash in PHC's form. The error says what it is to be.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let hash = PasswordHash::new(text).ok();
        let hash = hash.filter(|hash| hash.algorithm == ARGON2ID_IDENT && hash.version == Some(19));
        let hash = hash.filter(|hash| hash.salt.is_some() && hash.hash.is_some());
        let hash = hash.ok_or("password is an argon2id hash, as `steadfast user passwd` writes it")?;
        let params = Params::try_from(&hash).map_err(|_| "the parameters of the hash cannot be used")?;
        let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return Err("the hash costs too much: it may take 256 MiB, 16 passes and 16 lanes");
        }
        Ok(Self(hash))
    }

    /// One that no password has, of the same cost.
    pub(super) fn nobodys(&self) -> Self {
        Self(nobodys(self.0.params.clone()))
    }

    /// One that no password has, of the cost of those that we make.
    pub(super) fn nobodys_default() -> Self {
        let params = ParamsString::try_from(argon2().params()).expect("parameters of ours can be written");
        Self(nobodys(params))
    }

    /// What it takes to verify, for comparing.
    pub(super) fn cost(&self) -> u64 {
        let params = Params::try_from(&self.0).expect("they were read when it was parsed");
        u64::from(params.m_cost()) * u64::from(params.t_cost())
    }

    /// Whether this is the password. Takes tens of milliseconds, and memory, whatever the answer.
    pub fn verify(&self, password: &Secret) -> bool {
        argon2().verify_password(password.reveal(), &self.0).is_ok()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

fn nobodys(params: ParamsString) -> PasswordHash {
    PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(19),
        params,
        salt: Some(Salt::new(&[0; 16]).expect("16 bytes are a salt")),
        hash: Some(Output::new(&[0; 32]).expect("32 bytes are an output")),
    }
}

/// Users by `login` and `passcode`.
#[derive(Debug)]
pub(super) struct Passwords(pub(super) Arc<Users>);

impl Authenticator for Passwords {
    fn method(&self) -> Method {
        Method::Password
    }

    fn claims(&self, login: &Login) -> bool {
        login.name.is_some() && login.passcode.is_some()
    }

    fn is_costly(&self) -> bool {
        true
    }

    fn judge(&self, login: &Login, _now: Now) -> Result<Grant, Reason> {
        let (Some(name), Some(password)) = (&login.name, &login.passcode) else {
            return Err(Reason::NoCredentials);
        };
        let user = std::str::from_utf8(name).ok().and_then(|name| self.0.find(name));
        let hash = user.and_then(|user| user.password.as_ref());
        // The same work is done for whoever is no user: how long it takes tells nothing.
        let is_right = hash.unwrap_or_else(|| self.0.nobodys_hash()).verify(password);
        match (user, hash) {
            (Some(user), Some(_)) if is_right => grant_user(user, Method::Password),
            (Some(_), Some(_)) => Err(Reason::WrongPassword),
            _ => Err(Reason::UnknownUser),
        }
    }

    fn stands(&self, grant: &Grant) -> bool {
        matches!(&grant.basis, Basis::User(user) if self.0.has(user))
    }
}
