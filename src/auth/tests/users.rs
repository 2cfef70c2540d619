use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::password::{Hash, PasswordRule, check_password};
use super::*;

fn wrong(text: &str) -> String {
    Users::parse(Path::new("users.toml"), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let check = |text: &str, expected: &str| assert_eq!(wrong(text), format!("users.toml, line {expected}"));
    check(
        "[[user]]\nname = \"a\"\n[[user]]\nname = \"a\"\n",
        "4: there is a user of this name above",
    );
    check(
        "[[user]]\nname = \"a\"\nuid = 7\n[[user]]\nname = \"b\"\nuid = 7\n",
        "6: another user has this uid",
    );
    check(
        "[[user]]\nname = \" a\"\n",
        "2: a name has 1 to 128 bytes, no control characters and no spaces around it",
    );
    check(
        "[[user]]\nname = \"a\"\ngroups = [\"\"]\n",
        "3: a group's name has 1 to 128 bytes, no control characters and no spaces around it",
    );
    check(
        "[[user]]\nname = \"a\"\npasword = \"x\"\n",
        "3: unknown field `pasword`, expected one of `name`, `password`, `groups`, `disabled`, `uid`",
    );
    check("[[user]]\npassword = \"x\"\n", "1: missing field `name`");
}

/// Who writes a password where a hash belongs does not read it in the log.
#[test]
fn a_password_in_the_clear_is_refused_and_not_repeated() {
    let long = "$argon2id$v=19$m=999999999,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA";
    let costly = "$argon2id$v=19$m=19456,t=99,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA";
    let other = "$argon2i$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA";
    for value in [
        "\"hunter2hunter2\"",
        "12345678",
        "[\"hunter2\"]",
        "{ plain = \"hunter2\" }",
        "\"\"",
    ] {
        let line = wrong(&format!("[[user]]\nname = \"a\"\npassword = {value}\n"));
        assert_eq!(
            line,
            "users.toml, line 3: password is an argon2id hash, as `steadfast user passwd` writes it"
        );
    }
    for hash in [long, costly, other] {
        let line = wrong(&format!("[[user]]\nname = \"a\"\npassword = \"{hash}\"\n"));
        assert!(line.starts_with("users.toml, line 3: "), "{line}");
        assert!(!line.contains("$argon2"), "{line}");
    }
}

#[test]
fn a_hash_is_that_of_its_password_and_salt() {
    let password = Secret::new("correct horse");
    let hash = Hash::of(&password, &[1; 16]);
    let text = hash.to_string();
    assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    let read = Hash::parse(&text).unwrap();
    assert_eq!(read, hash);
    assert!(read.verify(&password));
    assert!(!read.verify(&Secret::new("correct hors")));
    assert_ne!(Hash::of(&password, &[2; 16]), hash);
}

#[test]
fn a_new_password_has_a_form_that_every_client_can_send() {
    let check = |text: &str, expected| assert_eq!(check_password(&Secret::new(text)), expected, "{text:?}");
    check("eight ch", Ok(()));
    check("日本日本日本日本", Ok(()));
    check("seven c", Err(PasswordRule::Short));
    check("", Err(PasswordRule::Short));
    check(" leading space", Err(PasswordRule::Form));
    check("trailing space ", Err(PasswordRule::Form));
    check("two\nlines of it", Err(PasswordRule::Form));
    check("with\0nul in it", Err(PasswordRule::Form));
    check(&"x".repeat(1_024), Ok(()));
    check(&"x".repeat(1_025), Err(PasswordRule::Long));
    assert_eq!(
        check_password(&Secret::new(vec![0xff; 10])),
        Err(PasswordRule::Form)
    );
}

#[test]
fn a_change_keeps_what_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let hash = Hash::parse(&cheap("secret word")).unwrap();
    let before = format!(
        "# Ours.\n\n# Alice does the orders.\n[[user]]\nname = \"alice\" # since 2020\npassword = \"{hash}\"\n\n\
         [[user]]\nname = \"bob\"\n"
    );
    fs::write(&path, &before).unwrap();
    let change = |change: &dyn Fn(&mut UsersFile)| {
        let mut users = UsersFile::open(&path).unwrap();
        change(&mut users);
        users.save().unwrap();
        fs::read_to_string(&path).unwrap()
    };
    let disabled = change(&|users| users.set_disabled("bob", true).unwrap());
    assert_eq!(disabled, format!("{before}disabled = true\n"));
    let enabled = change(&|users| users.set_disabled("bob", false).unwrap());
    assert_eq!(enabled, format!("{before}disabled = false\n"));
    let other = Hash::parse(&cheap("another word")).unwrap();
    let changed = change(&|users| users.set_password("alice", &other).unwrap());
    assert_eq!(changed, enabled.replace(&hash.to_string(), &other.to_string()));
    let added = change(&|users| {
        let groups = ["a".to_owned(), "b".to_owned()];
        users.add("eve", None, &groups, Some(7)).unwrap();
    });
    assert_eq!(
        added,
        format!("{changed}\n[[user]]\nname = \"eve\"\ngroups = [\"a\", \"b\"]\nuid = 7\n")
    );
    let removed = change(&|users| users.remove("bob").unwrap());
    assert!(
        removed.contains("# Alice does the orders.") && !removed.contains("bob"),
        "{removed}"
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["users.toml"], "nothing else is left");

    let mut users = UsersFile::open(&path).unwrap();
    assert!(matches!(
        users.add("eve", None, &[], None),
        Err(AuthError::UserExists { .. })
    ));
    assert!(matches!(users.remove("bob"), Err(AuthError::UserUnknown { .. })));
    // What would not be read again is not written: somebody else has this uid.
    users.add("mallory", None, &[], Some(7)).unwrap();
    drop(users.save().unwrap_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), removed);
}

#[test]
fn users_in_one_line_are_changed_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    fs::write(&path, "user = [{ name = \"a\" }, { name = \"b\" }]\n").unwrap();
    let mut users = UsersFile::open(&path).unwrap();
    users.set_disabled("a", true).unwrap();
    users.remove("b").unwrap();
    users.add("c", None, &[], None).unwrap();
    users.save().unwrap();
    drop(users);
    let users = Users::read(&path).unwrap().unwrap();
    let there: Vec<_> = users.iter().map(|user| (&*user.name, user.disabled)).collect();
    assert_eq!(there, [("a", true), ("c", false)]);
}

#[test]
fn a_file_that_was_there_must_be_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let sources = |named| Sources {
        users_file: Some(path.clone()),
        users_file_named: named,
        ..Sources::default()
    };
    assert!(matches!(
        Authority::load(sources(true)),
        Err(AuthError::NoUsersFile(_))
    ));
    let open = Authority::load(sources(false)).unwrap();
    assert!(open.is_open());
    fs::write(&path, "").unwrap();
    let closed = open.reload().unwrap();
    assert!(!closed.is_open());
    fs::remove_file(&path).unwrap();
    assert!(matches!(closed.reload(), Err(AuthError::NoUsersFile(_))));
    assert!(open.reload().unwrap().is_open());
}

#[test]
fn what_everybody_may_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    UsersFile::open(&path).unwrap().save().unwrap();
    let notices = || {
        let sources = Sources {
            users_file: Some(path.clone()),
            ..Sources::default()
        };
        Authority::load(sources).unwrap().notices().len()
    };
    assert_eq!(notices(), 0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(notices(), 1);
}

/// Made or changed by root, the file is that of whoever has the folder, or had the file.
#[test]
fn what_root_writes_the_broker_can_read() {
    use std::os::unix::fs::{MetadataExt, chown};

    assert!(rustix::process::geteuid().is_root(), "run it as root");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    chown(dir.path(), Some(65_534), Some(65_533)).unwrap();
    let owner = || {
        let mut users = UsersFile::open(&path).unwrap();
        if users.check_absent("alice").is_ok() {
            users.add("alice", None, &[], None).unwrap();
        }
        users.save().unwrap();
        let file = fs::metadata(&path).unwrap();
        (file.uid(), file.gid(), file.mode() & 0o777)
    };
    assert_eq!(owner(), (65_534, 65_533, 0o600));
    chown(&path, Some(65_532), Some(65_531)).unwrap();
    assert_eq!(owner(), (65_532, 65_531, 0o600));
}
