//! JWTs (RFC 7519) as passcodes: signed, compact, with a key that we have.
//!
//! # Invariants
//! - A key is tried for a token only if the token names the algorithm of the key; no other algorithm, and no `none`, is known.
//! - The signature is verified before anything of the claims is read.
//! - `exp` is demanded. There is no leeway.
//!
//! # Not here
//! Encryption (JWE), and fetching keys: an operator puts them into files.

use std::fs;
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::{hmac, signature};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::{AuthError, Authenticator, Basis, Grant, Reason, Sources, Users, is_name};
use crate::base::{Login, Method, Now, Principal, Secret, TokenAlgorithm, TokenKey};

/// An HMAC key is as long as the hash, at least (RFC 7518, 3.2); an RSA key has 2,048 bits (3.3), which is so much in its form.
const HMAC_KEY_BYTES_MIN: usize = 32;
const RSA_KEY_BYTES_MIN: usize = 266;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// A key that tokens may be signed with, or its public half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    algorithm: TokenAlgorithm,
    bytes: Secret,
}

impl Key {
    fn read(source: &TokenKey) -> Result<Self, AuthError> {
        let path = &source.file;
        let bytes = fs::read(path).map_err(|source| AuthError::File {
            operation: "read",
            path: path.clone(),
            source,
        })?;
        Self::parse(source.algorithm, &Secret::new(bytes)).map_err(|what| AuthError::Key {
            path: path.clone(),
            algorithm: source.algorithm.name(),
            what,
        })
    }

    /// The content of a key's file.
    fn parse(algorithm: TokenAlgorithm, file: &Secret) -> Result<Self, &'static str> {
        let bytes = match algorithm {
            TokenAlgorithm::Hs256 => {
                let secret = file.reveal().trim_ascii_end();
                if secret.starts_with(b"-----BEGIN") {
                    // A public key as a secret is one that everybody has.
                    return Err("it is PEM, and the secret of HS256 is bytes that nobody else has");
                }
                if secret.len() < HMAC_KEY_BYTES_MIN {
                    return Err("the secret of HS256 has 32 bytes at least");
                }
                secret.to_vec()
            }
            TokenAlgorithm::Rs256 | TokenAlgorithm::Es256 => public_key(algorithm, file.reveal())?,
        };
        Ok(Self {
            algorithm,
            bytes: Secret::new(bytes),
        })
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = self.bytes.reveal();
        let public = |algorithm: &'static dyn signature::VerificationAlgorithm| {
            signature::UnparsedPublicKey::new(algorithm, key)
                .verify(message, signature)
                .is_ok()
        };
        match self.algorithm {
            TokenAlgorithm::Hs256 => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), message, signature).is_ok()
            }
            TokenAlgorithm::Rs256 => public(&signature::RSA_PKCS1_2048_8192_SHA256),
            TokenAlgorithm::Es256 => public(&signature::ECDSA_P256_SHA256_FIXED),
        }
    }
}

/// The public key of a PEM file, if it is one for the algorithm.
fn public_key(algorithm: TokenAlgorithm, pem: &[u8]) -> Result<Vec<u8>, &'static str> {
    const NO_KEY: &str = "it holds no public key in PEM (BEGIN PUBLIC KEY)";
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| NO_KEY)?;
    let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| NO_KEY)?;
    let key = info.subject_public_key.as_bytes().ok_or(NO_KEY)?;
    let oid = info.algorithm.oid;
    if algorithm == TokenAlgorithm::Rs256 {
        return match oid == RSA {
            true if key.len() >= RSA_KEY_BYTES_MIN => Ok(key.to_vec()),
            true => Err("an RSA key has 2,048 bits at least"),
            false => Err("RS256 takes the public key of RSA"),
        };
    }
    let curve = info.algorithm.parameters_oid().ok();
    match oid == EC && curve == Some(P256) {
        true => Ok(key.to_vec()),
        false => Err("ES256 takes a public key on P-256"),
    }
}

/// What we know a token by.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    keys: Vec<Arc<Key>>,
    audience: Option<String>,
    issuer: Option<String>,
}

/// The head of a token; the rest of it means nothing here.
#[derive(Deserialize)]
struct Head {
    alg: String,
    /// Something that has to be understood (RFC 7515, 4.1.11), and is not.
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds, perhaps with a fraction.
    exp: f64,
    nbf: Option<f64>,
    aud: Option<Audience>,
    iss: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A token that was believed.
struct Believed {
    key: Arc<Key>,
    claims: Claims,
    until_wall_ms: u64,
}

impl Tokens {
    pub(super) fn read(sources: &Sources) -> Result<Self, AuthError> {
        let keys = sources.token_keys.iter().map(|key| Key::read(key).map(Arc::new));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            audience: sources.token_audience.clone(),
            issuer: sources.token_issuer.clone(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn believe(&self, token: &[u8], now: Now) -> Result<Believed, Reason> {
        const BAD: Reason = Reason::TokenMalformed;
        let token = std::str::from_utf8(token).map_err(|_| BAD)?;
        let (message, signature) = token.rsplit_once('.').ok_or(BAD)?;
        let (head, claims) = message.split_once('.').ok_or(BAD)?;
        let part = |text: &str| Base64UrlUnpadded::decode_vec(text).map_err(|_| BAD);
        let head: Head = serde_json::from_slice(&part(head)?).map_err(|_| BAD)?;
        if head.crit.is_some() {
            return Err(BAD);
        }
        let signature = part(signature)?;
        let of_algorithm = |key: &&Arc<Key>| key.algorithm.name() == head.alg;
        let key = self
            .keys
            .iter()
            .filter(of_algorithm)
            .find(|key| key.has_signed(message.as_bytes(), &signature))
            .ok_or(Reason::TokenSignature)?;
        let claims: Claims = serde_json::from_slice(&part(claims)?).map_err(|_| BAD)?;
        let until_wall_ms = wall_ms(claims.exp);
        let begun = claims.nbf.is_none_or(|from| wall_ms(from) <= now.wall_ms);
        if until_wall_ms <= now.wall_ms || !begun {
            return Err(Reason::TokenTime);
        }
        let for_us = |wanted: &String| match &claims.aud {
            None => false,
            Some(Audience::One(audience)) => audience == wanted,
            Some(Audience::Several(audiences)) => audiences.contains(wanted),
        };
        let by_issuer = |wanted: &String| claims.iss.as_ref() == Some(wanted);
        if !self.audience.as_ref().is_none_or(for_us) || !self.issuer.as_ref().is_none_or(by_issuer) {
            return Err(Reason::TokenAudience);
        }
        if !is_name(&claims.sub) || !claims.groups.iter().all(|group| is_name(group)) {
            return Err(BAD);
        }
        Ok(Believed {
            key: Arc::clone(key),
            claims,
            until_wall_ms,
        })
    }
}

/// Milliseconds of a time in a token. What is before 1970, or beyond all time, is cut there.
fn wall_ms(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// Whoever bears a token.
#[derive(Debug)]
pub(super) struct Bearers {
    pub(super) tokens: Arc<Tokens>,
    /// A user who is disabled there does not come in by a token either.
    pub(super) users: Option<Arc<Users>>,
}

impl Bearers {
    fn is_disabled(&self, name: &str) -> bool {
        let user = self.users.as_ref().and_then(|users| users.find(name));
        user.is_some_and(|user| user.disabled)
    }
}

impl Authenticator for Bearers {
    fn method(&self) -> Method {
        Method::Jwt
    }

    /// Three parts, the first an object of JSON in base64: no password looks so by chance.
    fn claims(&self, login: &Login) -> bool {
        login.passcode.as_ref().is_some_and(|passcode| {
            let mut parts = passcode.reveal().split(|byte| *byte == b'.');
            let head = parts.next().and_then(|head| std::str::from_utf8(head).ok());
            let head = head.and_then(|head| Base64UrlUnpadded::decode_vec(head).ok());
            parts.count() == 2 && head.is_some_and(|head| head.trim_ascii_start().starts_with(b"{"))
        })
    }

    fn judge(&self, login: &Login, now: Now) -> Result<Grant, Reason> {
        let token = login.passcode.as_ref().ok_or(Reason::NoCredentials)?;
        let believed = self.tokens.believe(token.reveal(), now)?;
        let name = believed.claims.sub;
        if login.name.as_deref().is_some_and(|said| said != name.as_bytes()) {
            return Err(Reason::TokenSubject);
        }
        if self.is_disabled(&name) {
            return Err(Reason::Disabled);
        }
        let groups = believed.claims.groups.into_iter().map(Into::into);
        Ok(Grant {
            principal: Arc::new(Principal {
                name: Some(name.into()),
                groups: groups.collect(),
            }),
            method: Method::Jwt,
            until_wall_ms: Some(believed.until_wall_ms),
            basis: Basis::Key(believed.key),
        })
    }

    fn stands(&self, grant: &Grant) -> bool {
        let name = grant.principal.name.as_deref().unwrap_or_default();
        matches!(&grant.basis, Basis::Key(key) if self.tokens.keys.contains(key)) && !self.is_disabled(name)
    }
}
