#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod slowing;
mod token;
mod users;

use std::path::Path;

use super::*;
use crate::base::{Identity, Secret};

const NOW: Now = Now {
    wall_ms: 1_700_000_000_000,
    mono_ms: 5_000,
};

/// A cheap hash of "secret word": what it costs is not what is tested.
fn cheap(password: &str) -> String {
    use argon2::password_hash::PasswordHasher;
    let params = argon2::Params::new(64, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::from(params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), b"salt of this test");
    hash.unwrap().to_string()
}

fn users(text: &str) -> Users {
    Users::parse(Path::new("users.toml"), text).unwrap()
}

/// Alice with a password, group and uid; carol is disabled; dave has no password.
fn some_users() -> Users {
    users(&format!(
        "[[user]]\nname = \"alice\"\npassword = \"{hash}\"\ngroups = [\"orders\"]\nuid = 1000\n\
         [[user]]\nname = \"carol\"\npassword = \"{hash}\"\ndisabled = true\nuid = 1001\n\
         [[user]]\nname = \"dave\"\n",
        hash = cheap("secret word")
    ))
}

fn authority() -> Authority {
    Authority::new(Sources::default(), Some(some_users()), Tokens::default())
}

fn login(name: &str, passcode: &str) -> Login {
    Login {
        name: (!name.is_empty()).then(|| name.as_bytes().into()),
        passcode: (!passcode.is_empty()).then(|| Secret::new(passcode)),
        identity: Identity::Unknown,
    }
}

fn only(methods: &[Method]) -> Methods {
    Methods::Only(methods.into())
}

/// Who it is and by which method, or why not.
fn judged(authority: &Authority, login: &Login, methods: &Methods) -> String {
    match authority.judge(login, methods, NOW) {
        Ok(grant) => {
            let name = grant.principal.name.as_deref().unwrap_or("nobody");
            format!("{name} by {}", grant.method.name())
        }
        Err((_, reason)) => reason.code().to_owned(),
    }
}

#[test]
fn users_come_in_by_what_they_can_prove() {
    let authority = authority();
    let check = |login: &Login, expected: &str| {
        assert_eq!(
            judged(&authority, login, &Methods::Configured),
            expected,
            "{login:?}"
        );
    };
    check(&login("alice", "secret word"), "alice by password");
    check(&login("alice", "secret wor"), "wrong-password");
    check(&login("Alice", "secret word"), "unknown-user");
    check(&login("bob", "secret word"), "unknown-user");
    check(&login("carol", "secret word"), "disabled");
    check(&login("dave", "secret word"), "unknown-user");
    check(&login("alice", ""), "no-credentials");
    check(&login("", "secret word"), "no-credentials");
    check(&login("", ""), "no-credentials");
    let cut = Login {
        name: Some(b"ali\xff"[..].into()),
        ..login("x", "secret word")
    };
    check(&cut, "unknown-user");

    let shown = |name: &str, said: Login| Login {
        identity: Identity::Certificate {
            login: Some(name.into()),
        },
        ..said
    };
    check(&shown("dave", login("", "")), "dave by certificate");
    check(&shown("dave", login("dave", "whatever")), "dave by certificate");
    check(&shown("dave", login("alice", "secret word")), "alice by password");
    check(&shown("dave", login("alice", "")), "no-credentials");
    check(&shown("carol", login("", "")), "disabled");
    check(&shown("stranger", login("", "")), "no-credentials");

    let local = |uid, said: Login| Login {
        identity: Identity::Local { uid, pid: None },
        ..said
    };
    check(&local(1000, login("", "")), "alice by unix");
    check(&local(1000, login("alice", "")), "alice by unix");
    check(&local(1000, login("dave", "")), "no-credentials");
    check(&local(1001, login("", "")), "disabled");
    check(&local(1002, login("", "")), "no-credentials");
}

#[test]
fn a_listener_takes_what_it_says() {
    let authority = authority();
    let right = login("alice", "secret word");
    let nothing = login("", "");
    let check = |login: &Login, methods: &[Method], expected: &str| {
        assert_eq!(judged(&authority, login, &only(methods)), expected, "{methods:?}");
    };
    check(&right, &[Method::Password], "alice by password");
    check(&right, &[Method::Unix, Method::Jwt], "no-credentials");
    check(&nothing, &[Method::Password, Method::None], "nobody by none");
    check(&right, &[Method::Password, Method::None], "alice by password");
    // Who says who it is must prove it, although nobody would have to say so.
    check(
        &login("alice", "wrong"),
        &[Method::Password, Method::None],
        "wrong-password",
    );
    check(
        &login("alice", ""),
        &[Method::Password, Method::None],
        "no-credentials",
    );
    // Where nobody is asked, nothing is read, and nobody becomes anybody.
    check(&right, &[Method::None], "nobody by none");
    check(&nothing, &[Method::None], "nobody by none");
    assert!(authority.asks_nobody(&only(&[Method::None])));
    assert!(!authority.asks_nobody(&only(&[Method::None, Method::Password])));
    assert!(!authority.asks_nobody(&Methods::Configured));
}

#[test]
fn without_users_and_keys_nobody_is_asked() {
    let authority = Authority::default();
    assert!(authority.is_open());
    assert!(authority.asks_nobody(&Methods::Configured));
    let password = only(&[Method::Password]);
    assert_eq!(
        judged(&authority, &login("a", "b"), &Methods::Configured),
        "nobody by none"
    );
    // A listener that demands a password of nobody lets nobody in.
    assert_eq!(judged(&authority, &login("a", "b"), &password), "no-credentials");
    // A users file without users lets nobody in either.
    let empty = Authority::new(Sources::default(), Some(users("")), Tokens::default());
    assert!(!empty.is_open());
    assert_eq!(
        judged(&empty, &login("", ""), &Methods::Configured),
        "no-credentials"
    );
    assert_eq!(
        judged(&empty, &login("a", "b"), &Methods::Configured),
        "unknown-user"
    );
}

#[test]
fn only_passwords_are_costly() {
    let authority = authority();
    let costly = |login: &Login| authority.is_costly(login, &Methods::Configured);
    assert!(costly(&login("alice", "x")));
    assert!(costly(&login("nobody", "x")));
    assert!(!costly(&login("", "")));
    let local = Login {
        identity: Identity::Local { uid: 1000, pid: None },
        ..login("", "")
    };
    assert!(!costly(&local));
}

#[test]
fn a_login_stands_as_long_as_its_user_is_the_same() {
    let before = authority();
    let methods = Methods::Configured;
    let grant = before
        .judge(&login("alice", "secret word"), &methods, NOW)
        .unwrap();
    assert_eq!(*grant.principal.groups, ["orders".into()]);
    assert!(before.stands(&grant, &methods));
    let check = |text: &str, expected: bool| {
        let users = Some(users(text));
        let after = Authority::new(Sources::default(), users, Tokens::default());
        assert_eq!(after.stands(&grant, &methods), expected, "{text}");
    };
    let hash = cheap("secret word");
    let alice =
        format!("[[user]]\nname = \"alice\"\npassword = \"{hash}\"\ngroups = [\"orders\"]\nuid = 1000\n");
    check(&alice, true);
    check(&format!("{alice}[[user]]\nname = \"new\"\n"), true);
    check("", false);
    check(&format!("{alice}disabled = true\n"), false);
    check(&alice.replace("orders", "others"), false);
    check(&alice.replace(&hash, &cheap("another word")), false);
    assert!(!before.stands(&grant, &only(&[Method::Unix])));

    let open = Authority::default();
    let anonymous = open.judge(&login("", ""), &methods, NOW).unwrap();
    assert!(open.stands(&anonymous, &methods));
    assert!(!before.stands(&anonymous, &methods));
    assert!(before.stands(&anonymous, &only(&[Method::None])));
}

#[test]
fn nothing_secret_is_shown() {
    let login = login("alice", "secret word");
    let authority = authority();
    let grant = authority.judge(&login, &Methods::Configured, NOW).unwrap();
    let shown = format!(
        "{login:?} {authority:?} {grant:?} {:?}",
        Secret::new("secret word")
    );
    assert!(shown.contains("alice"), "{shown}");
    for secret in ["secret word", "argon2id", "115, 101, 99"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}
