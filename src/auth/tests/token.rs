use std::fs;

use rcgen::KeyPair;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::*;
use crate::base::TokenAlgorithm;

const SECRET: &[u8] = b"a secret of thirty-two bytes and a bit more";
/// A public key, and a token of alice's that was signed once with its private half; issuer "issuer", audiences "other" and
/// "steadfast", group "orders", until 2100.
const RSA_PEM: &str = include_str!("rs256.pem");
const RSA_TOKEN: &str = include_str!("rs256.jwt");
const SHORT_PEM: &str = include_str!("short.pem");

const SECOND: u64 = 1_700_000_000;

fn base64(bytes: impl AsRef<[u8]>) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Base64UrlUnpadded::encode_string(bytes.as_ref())
}

/// A token with this head and these claims, signed with the secret.
fn token(head: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(head), base64(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", base64(signature))
}

fn hs256(claims: &str) -> String {
    token("{\"alg\":\"HS256\",\"typ\":\"JWT\"}", claims)
}

fn alice(more: &str) -> String {
    hs256(&format!("{{\"sub\":\"alice\",\"exp\":{}{more}}}", SECOND + 60))
}

/// With keys in files of a folder.
fn with_keys(
    keys: &[(TokenAlgorithm, &[u8])],
    change: impl FnOnce(&mut Sources),
) -> Result<Authority, AuthError> {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys.iter().enumerate().map(|(number, (algorithm, content))| {
        let file = dir.path().join(number.to_string());
        fs::write(&file, content).unwrap();
        TokenKey {
            algorithm: *algorithm,
            file,
        }
    });
    let mut sources = Sources {
        token_keys: keys.collect(),
        ..Sources::default()
    };
    change(&mut sources);
    Authority::load(sources)
}

fn secret_only() -> Authority {
    with_keys(&[(TokenAlgorithm::Hs256, SECRET)], |_| {}).unwrap()
}

fn judge(authority: &Authority, name: &str, token: &str) -> String {
    judged(authority, &login(name, token), &Methods::Configured)
}

#[test]
fn a_token_says_who_it_is_with_groups_and_an_end() {
    let authority = secret_only();
    let token = alice(",\"groups\":[\"orders\",\"billing\"]");
    let grant = authority
        .judge(&login("", &token), &Methods::Configured, NOW)
        .unwrap();
    assert_eq!(grant.principal.name.as_deref(), Some("alice"));
    assert_eq!(*grant.principal.groups, ["orders".into(), "billing".into()]);
    assert_eq!(grant.until_wall_ms, Some((SECOND + 60) * 1_000));
    assert_eq!(judge(&authority, "alice", &token), "alice by jwt");
    assert_eq!(judge(&authority, "bob", &token), "token-subject");
    assert!(authority.stands(&grant, &Methods::Configured));
    let other = with_keys(&[(TokenAlgorithm::Hs256, &[b'x'; 32])], |_| {}).unwrap();
    assert!(!other.stands(&grant, &Methods::Configured), "its key is gone");
    assert_eq!(judge(&other, "alice", &token), "token-signature");
    // Without the method, a token is a passcode like any other; and a passcode like any other is no token.
    let password = only(&[Method::Password]);
    assert_eq!(
        judged(&authority, &login("alice", &token), &password),
        "no-credentials"
    );
    assert_eq!(
        judge(&authority, "alice", "eyJust a password.really"),
        "no-credentials"
    );
}

#[test]
fn claims_have_their_bounds_and_forms() {
    let authority = secret_only();
    let check = |claims: &str, expected: &str| {
        assert_eq!(judge(&authority, "", &hs256(claims)), expected, "{claims}");
    };
    let at = |name: &str, seconds: u64| format!("{{\"sub\":\"alice\",\"{name}\":{seconds}}}");
    check(&at("exp", SECOND), "token-time");
    check(&at("exp", SECOND + 1), "alice by jwt");
    check(
        &format!("{{\"sub\":\"alice\",\"exp\":{SECOND}.5}}"),
        "alice by jwt",
    );
    check("{\"sub\":\"alice\",\"exp\":-1}", "token-time");
    check("{\"sub\":\"alice\",\"exp\":1e300}", "alice by jwt");
    // `exp` is demanded, and is a number, once.
    check("{\"sub\":\"alice\"}", "token-malformed");
    check(
        &format!("{{\"sub\":\"alice\",\"exp\":\"{}\"}}", SECOND + 60),
        "token-malformed",
    );
    check("{\"sub\":\"alice\",\"exp\":null}", "token-malformed");
    check(
        &format!("{{\"sub\":\"alice\",\"exp\":1,\"exp\":{}}}", SECOND + 60),
        "token-malformed",
    );
    let later = |more: &str| format!("{{\"exp\":{}{more}}}", SECOND + 60);
    check(&later(",\"sub\":\"alice\",\"nbf\":1700000000"), "alice by jwt");
    check(&later(",\"sub\":\"alice\",\"nbf\":1700000001"), "token-time");
    check(&later(""), "token-malformed");
    check(&later(",\"sub\":\"\""), "token-malformed");
    check(&later(",\"sub\":\"a\\nb\""), "token-malformed");
    check(&later(",\"sub\":7"), "token-malformed");
    check(
        &later(",\"sub\":\"alice\",\"groups\":\"orders\""),
        "token-malformed",
    );
    check(&later(",\"sub\":\"alice\",\"groups\":[\"\"]"), "token-malformed");
    check("[]", "token-malformed");
}

#[test]
fn audience_and_issuer_are_demanded_where_they_are_configured() {
    let with = |audience: Option<&str>, issuer: Option<&str>| {
        let authority = with_keys(&[(TokenAlgorithm::Hs256, SECRET)], |sources| {
            sources.token_audience = audience.map(str::to_owned);
            sources.token_issuer = issuer.map(str::to_owned);
        });
        authority.unwrap()
    };
    let ours = with(Some("steadfast"), None);
    let check = |authority: &Authority, more: &str, expected: &str| {
        assert_eq!(judge(authority, "", &alice(more)), expected, "{more}");
    };
    check(&ours, ",\"aud\":\"steadfast\"", "alice by jwt");
    check(&ours, ",\"aud\":[\"other\",\"steadfast\"]", "alice by jwt");
    check(&ours, ",\"aud\":\"other\"", "token-audience");
    check(&ours, ",\"aud\":[]", "token-audience");
    check(&ours, "", "token-audience");
    check(&ours, ",\"aud\":7", "token-malformed");
    let issued = with(None, Some("issuer"));
    check(&issued, ",\"iss\":\"issuer\"", "alice by jwt");
    check(&issued, ",\"iss\":\"another\"", "token-audience");
    check(&issued, "", "token-audience");
    let tells = |authority: &Authority| {
        authority
            .notices()
            .iter()
            .any(|notice| notice.contains("jwt_audience"))
    };
    assert!(!tells(&ours) && tells(&issued));
}

/// What a token says of its algorithm makes no key another: neither none, nor a public key as a secret.
#[test]
fn an_algorithm_belongs_to_its_key() {
    let authority = secret_only();
    let claims = format!("{{\"sub\":\"alice\",\"exp\":{}}}", SECOND + 60);
    for head in [
        "{\"alg\":\"none\"}",
        "{\"alg\":\"None\"}",
        "{\"alg\":\"hs256\"}",
        "{\"alg\":\"HS384\"}",
        "{\"alg\":\"RS256\"}",
        "{\"alg\":\"\"}",
    ] {
        let signed = token(head, &claims);
        assert_eq!(judge(&authority, "", &signed), "token-signature", "{head}");
        let (message, _) = signed.rsplit_once('.').unwrap();
        assert_eq!(
            judge(&authority, "", &format!("{message}.")),
            "token-signature",
            "{head}"
        );
    }
    for head in [
        "{}",
        "{\"alg\":null}",
        "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}",
    ] {
        let judged = judge(&authority, "", &token(head, &claims));
        assert_eq!(judged, "token-malformed", "{head}");
    }
    // HS256 with the text, and with the bytes, of the public key that is there for RS256.
    let public = with_keys(&[(TokenAlgorithm::Rs256, RSA_PEM.as_bytes())], |_| {}).unwrap();
    let message = format!("{}.{}", base64("{\"alg\":\"HS256\"}"), base64(&claims));
    for secret in [RSA_PEM.as_bytes(), RSA_PEM.trim_end().as_bytes()] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let forged = format!("{message}.{}", base64(hmac::sign(&key, message.as_bytes())));
        assert_eq!(judge(&public, "", &forged), "token-signature");
    }
}

#[test]
fn each_algorithm_believes_its_own() {
    let key = KeyPair::generate().unwrap();
    let random = SystemRandom::new();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random).unwrap();
    let claims = format!("{{\"sub\":\"eve\",\"exp\":{}}}", SECOND + 60);
    let message = format!("{}.{}", base64("{\"alg\":\"ES256\"}"), base64(claims));
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    let es256 = format!("{message}.{}", base64(signature));
    let authority = with_keys(
        &[
            (TokenAlgorithm::Rs256, RSA_PEM.as_bytes()),
            (TokenAlgorithm::Hs256, SECRET),
            (
                TokenAlgorithm::Es256,
                KeyPair::generate().unwrap().public_key_pem().as_bytes(),
            ),
            (TokenAlgorithm::Es256, key.public_key_pem().as_bytes()),
        ],
        |sources| sources.token_issuer = None,
    );
    let authority = authority.unwrap();
    assert_eq!(judge(&authority, "", &es256), "eve by jwt");
    assert_eq!(judge(&authority, "", RSA_TOKEN), "alice by jwt");
    assert_eq!(judge(&authority, "", &alice("")), "alice by jwt");
    // Each octet of a signature counts.
    for good in [&es256, RSA_TOKEN, &alice("")] {
        let (message, signature) = good.rsplit_once('.').unwrap();
        for at in [0, signature.len() / 2] {
            let mut changed = signature.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = format!("{message}.{}", String::from_utf8(changed).unwrap());
            assert_eq!(judge(&authority, "", &changed), "token-signature");
        }
        assert_eq!(judge(&authority, "", &format!("{message}.")), "token-signature");
        assert_eq!(
            judge(&authority, "", &format!("{good}=")),
            "token-malformed",
            "padding"
        );
    }
}

#[test]
fn keys_that_protect_nothing_are_refused() {
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
        .unwrap()
        .public_key_pem();
    let p256 = KeyPair::generate().unwrap();
    let check = |algorithm, content: &[u8], expected: &str| {
        let error = with_keys(&[(algorithm, content)], |_| {}).unwrap_err();
        let line = error.to_string();
        assert!(line.contains(expected), "{line}");
    };
    check(TokenAlgorithm::Hs256, &[b'x'; 31], "32 bytes at least");
    check(
        TokenAlgorithm::Hs256,
        b"too short, and blank\n\n\n\n\n\n\n\n\n\n\n\n\n",
        "32 bytes at least",
    );
    check(TokenAlgorithm::Hs256, RSA_PEM.as_bytes(), "nobody else has");
    check(TokenAlgorithm::Rs256, SHORT_PEM.as_bytes(), "2,048 bits");
    check(
        TokenAlgorithm::Rs256,
        p256.public_key_pem().as_bytes(),
        "public key of RSA",
    );
    check(TokenAlgorithm::Es256, RSA_PEM.as_bytes(), "on P-256");
    check(TokenAlgorithm::Es256, p384.as_bytes(), "on P-256");
    check(TokenAlgorithm::Rs256, b"nonsense", "BEGIN PUBLIC KEY");
    check(
        TokenAlgorithm::Es256,
        p256.serialize_pem().as_bytes(),
        "BEGIN PUBLIC KEY",
    );
}

#[test]
fn who_is_disabled_in_the_file_has_no_token_either() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.toml");
    fs::write(&file, "[[user]]\nname = \"alice\"\n").unwrap();
    let before = with_keys(&[(TokenAlgorithm::Hs256, SECRET)], |sources| {
        sources.users_file = Some(file.clone())
    });
    let before = before.unwrap();
    let grant = before
        .judge(&login("", &alice("")), &Methods::Configured, NOW)
        .unwrap();
    fs::write(&file, "[[user]]\nname = \"alice\"\ndisabled = true\n").unwrap();
    let after = with_keys(&[(TokenAlgorithm::Hs256, SECRET)], |sources| {
        sources.users_file = Some(file)
    })
    .unwrap();
    assert!(!after.stands(&grant, &Methods::Configured));
    assert_eq!(judge(&after, "", &alice("")), "disabled");
}

proptest::proptest! {
    /// Whatever a stranger makes up is judged, and not believed.
    #[test]
    fn nothing_made_up_is_believed(
        head in "\\{\"alg\":\"(HS256|RS256|ES256|none)\"[ -~]{0,10}\\}",
        claims in "\\{\"sub\":\"alice\",\"exp\":[0-9.eE+-]{0,12}[ -~]{0,20}\\}",
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
    ) {
        let keys = [(TokenAlgorithm::Hs256, SECRET), (TokenAlgorithm::Rs256, RSA_PEM.as_bytes())];
        let authority = with_keys(&keys, |_| {}).unwrap();
        let forged = format!("{}.{}.{}", base64(&head), base64(&claims), base64(&bytes));
        let forged = login("", &forged);
        proptest::prop_assert!(authority.judge(&forged, &Methods::Configured, NOW).is_err());
        // Signed, it may be believed, or not: there is an answer.
        let signed = login("alice", &token(&head, &claims));
        let _ = authority.judge(&signed, &Methods::Configured, NOW);
        let raw = Login { passcode: Some(Secret::new(bytes)), ..login("alice", "") };
        proptest::prop_assert!(authority.judge(&raw, &Methods::Configured, NOW).is_err());
    }
}
