use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::*;
use crate::base::{Methods, SETTINGS};

fn read(text: &str) -> Result<Config, ConfigErrors> {
    let mut reader = Reader::default();
    reader.read_text(Path::new("test.toml"), text);
    reader.check();
    let (loaded, mistakes) = reader.finish();
    mistakes.none()?;
    Ok(loaded.config)
}

/// What is wrong, if that is one thing.
fn only(mistakes: &ConfigErrors) -> &ConfigError {
    let all: Vec<_> = mistakes.iter().collect();
    match all[..] {
        [ConfigError::Placed { error, .. }] => error,
        [only] => only,
        _ => panic!("{mistakes}"),
    }
}

fn variables(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    list.iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn check_file(text: &str, expect: &str) {
    let error = read(text).expect_err(text).to_string();
    assert_eq!(error, expect);
}

fn check_variable(name: &str, value: &str, expect: &str) {
    let error = Config::load(Overrides::default(), variables(&[(name, value)])).expect_err(name);
    assert_eq!(error.to_string(), expect);
}

#[test]
fn the_sample_holds_every_key_with_its_default() {
    assert_eq!(read(SAMPLE).unwrap(), Config::default());
    let document = DeTable::parse(SAMPLE).unwrap();
    let mut written = BTreeSet::new();
    for (section, table) in document.get_ref() {
        for name in table.get_ref().as_table().unwrap().keys() {
            written.insert(format!("{}.{}", section.get_ref(), name.get_ref()));
        }
    }
    let known: BTreeSet<_> = keys()
        .map(|key| format!("{}.{}", key.section, key.name))
        .collect();
    assert_eq!(written, known);
}

#[test]
fn the_sample_holds_every_setting_with_its_default() {
    let (_, policy) = SAMPLE.split_once("#[[policy]]").expect("the sample has a policy");
    let lines = policy.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    });
    let text = format!("[[policy]]\n{}", lines.collect::<Vec<_>>().join("\n"));
    let config = read(&text).unwrap();
    let [(pattern, settings)] = &config.policies[..] else {
        panic!("one policy")
    };
    assert_eq!(pattern, ">");
    let written: Vec<_> = settings
        .iter()
        .map(|(key, value)| (key.name, value.clone()))
        .collect();
    let default = Limits::default().policy();
    let known: Vec<_> = SETTINGS.iter().map(|key| (key.name, key.of(&default))).collect();
    assert_eq!(written, known);
}

#[test]
fn the_sample_shows_every_key_of_a_rule() {
    let (_, rest) = SAMPLE.split_once("#[[rule]]").expect("the sample has a rule");
    let lines = rest.lines().filter_map(|line| line.strip_prefix('#'));
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with(' ')).collect();
    let config = read(&format!("[[rule]]\n{}", lines.join("\n"))).unwrap();
    let rules: Vec<String> = config.rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        ["allow send, receive, create to alice, group:ops on /queue/orders.*, /topic/>"]
    );
}

#[test]
fn rules_keep_their_order_and_their_lines() {
    let text = "\n[[rule]]\nallow = [\"*\"]\nprincipals = [\"*\"]\ndestinations = [\"/queue/a\"]\n\n[[rule]]\n\
                deny = [\"send\", \"browse\"]\nprincipals = [\"anonymous\", \"user:group:x\"]\ndestinations = [\"/topic/a.#\"]\n";
    let config = read(text).unwrap();
    let rules: Vec<(usize, String)> = config
        .rules
        .iter()
        .map(|rule| (rule.line, rule.to_string()))
        .collect();
    let expected = [
        (
            2,
            "allow send, receive, browse, create, purge, admin to * on /queue/a",
        ),
        (7, "deny send, browse to anonymous, user:group:x on /topic/a.#"),
    ];
    assert_eq!(rules, expected.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn a_rule_that_is_none_is_refused() {
    let error = |text: &str| read(text).expect_err(text).to_string();
    let whole = |line: &str, with: &str| {
        let lines = [
            "allow = [\"send\"]",
            "principals = [\"*\"]",
            "destinations = [\"/queue/a\"]",
        ];
        let lines = lines.map(|of| if of.starts_with(line) { with } else { of });
        error(&format!("[[rule]]\n{}\n", lines.join("\n")))
    };
    let needs = "test.toml, line 1: a [[rule]] needs ";
    assert!(whole("allow", "").starts_with(&format!("{needs}allow, or deny, and not both")));
    let both = whole("allow", "allow = [\"send\"]\ndeny = [\"send\"]");
    assert!(both.starts_with(&format!("{needs}allow, or deny, and not both")));
    assert!(whole("principals", "").starts_with(&format!("{needs}principals")));
    assert!(whole("destinations", "").starts_with(&format!("{needs}destinations")));
    for (key, values) in [
        (
            "allow",
            &["[]", "[\"read\"]", "\"send\"", "[1]", "[\"send\", \"\"]"][..],
        ),
        ("principals", &["[]", "[\"\"]", "\"*\"", "[\"group:\"]"]),
        (
            "destinations",
            &[
                "[]",
                "[\"a\"]",
                "[\"/queue/\"]",
                "[\"/queue/a.>.b\"]",
                "[\"/dsub/a\"]",
                "\"/queue/a\"",
            ],
        ),
    ] {
        for value in values {
            let told = whole(key, &format!("{key} = {value}"));
            assert!(
                told.contains(&format!(
                    "rule.{key} = {value} is not allowed; it takes a list of "
                )),
                "{told}"
            );
        }
    }
    assert_eq!(
        error("[[rule]]\nallow = [\"send\"]\nprincipal = [\"*\"]\n"),
        "test.toml, line 3: unknown key rule.principal; keys of [[rule]] are allow, deny, principals, destinations"
    );
    assert_eq!(
        error("[rule]\nallow = [\"send\"]\n"),
        "test.toml, line 1: rule is a list of tables: write [[rule]] and the keys of each below"
    );
}

#[test]
fn the_sample_shows_every_key_of_a_listener() {
    let (_, rest) = SAMPLE
        .split_once("#[[listener]]")
        .expect("the sample has a listener");
    let (part, _) = rest.split_once("\n\n").expect("another part follows");
    let shown: Vec<_> = part
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| !key.starts_with(' '))
        .collect();
    let mut known = listener::KEYS;
    known.sort_unstable();
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, known);
}

#[test]
fn listeners_are_read_and_refused_by_line() {
    let config = read(
        "[server]\nlisten = [\"127.0.0.1:1\"]\n[[listener]]\naddress = \"[::1]:2\"\n\n[[listener]]\naddress = \"localhost:3\"\ndialect = \"rabbitmq\"\n",
    )
    .unwrap();
    let all: Vec<_> = config
        .every_listener()
        .map(|listener| (listener.address.to_string(), listener.dialect.name()))
        .collect();
    let expected = [
        ("127.0.0.1:1", "steadfast"),
        ("[::1]:2", "steadfast"),
        ("127.0.0.1:3", "rabbitmq"),
    ];
    assert_eq!(
        all,
        expected.map(|(address, dialect)| (address.to_owned(), dialect))
    );
    let error = |text: &str| read(text).expect_err(text).to_string();
    assert_eq!(
        error("[listener]\naddress = \"127.0.0.1:1\"\n"),
        "test.toml, line 1: listener is a list of tables: write [[listener]] and the keys of each below"
    );
    assert_eq!(
        error("\n[[listener]]\ndialect = \"artemis\"\n"),
        format!("test.toml, line 2: a [[listener]] needs the key address: {ADDRESS_FORM}, or unix:PATH")
    );
    assert_eq!(
        error("[[listener]]\naddress = \"127.0.0.1:1\"\ntls = true\n"),
        "test.toml, line 3: unknown key listener.tls; keys of [[listener]] are address, dialect, authentication, transport, mode, \
         certificate_file, key_file, client_certificate, client_ca_file, client_certificate_login, paths, origins"
    );
    assert_eq!(
        error("[[listener]]\naddress = \"127.0.0.1:1\"\ndialect = \"openmq\"\n"),
        "test.toml, line 3: listener.dialect = \"openmq\" is not allowed; it takes steadfast, activemq, artemis, rabbitmq"
    );
    assert_eq!(
        error("[[listener]]\naddress = 61613\n"),
        format!(
            "test.toml, line 2: listener.address = 61613 is not allowed; it takes {ADDRESS_FORM}, or unix:PATH"
        )
    );
}

#[test]
fn transports_take_their_own_keys_and_no_others() {
    let listener = |keys: &str| {
        let mut config = read(&format!("[[listener]]\naddress = \"127.0.0.1:1\"\n{keys}"))?;
        Ok::<_, ConfigErrors>(config.listeners.remove(0))
    };
    let plain = listener("").unwrap();
    assert_eq!(
        (plain.transport(), plain.to_string()),
        ("tcp", "127.0.0.1:1".to_owned())
    );
    let files = "certificate_file = \"c\"\nkey_file = \"k\"\n";
    let tls = listener(&format!("transport = \"tls\"\n{files}")).unwrap();
    assert_eq!(
        (tls.transport(), tls.to_string()),
        ("tls", "127.0.0.1:1, tls".to_owned())
    );
    let expected = Tls {
        certificate_file: "c".into(),
        key_file: "k".into(),
        client: ClientCertificate::None,
        login: CertificateName::CommonName,
    };
    assert_eq!(tls.tls, Some(expected));
    let mutual = format!(
        "transport = \"wss\"\n{files}client_certificate = \"required\"\nclient_ca_file = \"a\"\n\
         client_certificate_login = \"uri\"\npaths = [\"/stomp\"]\norigins = [\"https://a.example:8443\"]\n"
    );
    let mutual = listener(&mutual).unwrap();
    assert_eq!(mutual.transport(), "wss");
    let asked = mutual.tls.unwrap();
    assert_eq!(asked.client, ClientCertificate::Required("a".into()));
    assert_eq!(asked.login, CertificateName::Uri);
    let expected = WebSocket {
        paths: vec!["/stomp".to_owned()],
        origins: vec!["https://a.example:8443".to_owned()],
    };
    assert_eq!(mutual.websocket, Some(expected));
    let ws = listener("transport = \"ws\"\n").unwrap();
    assert_eq!((ws.transport(), ws.websocket), ("ws", Some(WebSocket::default())));

    let unix = read("[[listener]]\naddress = \"unix:/run/s\"\n")
        .unwrap()
        .listeners
        .remove(0);
    assert_eq!(
        (unix.transport(), unix.to_string()),
        ("unix", "unix:/run/s".to_owned())
    );
    let open = read("[[listener]]\naddress = \"unix:/run/s\"\nmode = \"0666\"\n").unwrap();
    for (listener, expected) in [(&unix, 0o600), (&open.listeners[0], 0o666)] {
        assert!(matches!(listener.address, Address::Unix { mode, .. } if mode == expected));
    }

    let error = |keys: &str| listener(keys).expect_err(keys).to_string();
    for (keys, expected) in [
        (
            "transport = \"quic\"\n",
            "line 3: listener.transport = \"quic\" is not allowed; it takes tcp, tls, ws, wss",
        ),
        (
            "transport = \"tls\"\nkey_file = \"k\"\n",
            "line 1: a [[listener]] with this transport and client_certificate needs the key certificate_file: the path of a file",
        ),
        (
            "transport = \"tls\"\ncertificate_file = \"c\"\n",
            "line 1: a [[listener]] with this transport and client_certificate needs the key key_file: the path of a file",
        ),
        (
            "transport = \"wss\"\ncertificate_file = \"c\"\nkey_file = \"k\"\nclient_certificate = \"optional\"\n",
            "line 1: a [[listener]] with this transport and client_certificate needs the key client_ca_file: the path of a file",
        ),
        (
            "transport = \"tls\"\ncertificate_file = \"c\"\nkey_file = \"k\"\nclient_ca_file = \"a\"\n",
            "line 6: listener.client_ca_file has no use without client_certificate = \"optional\" or \"required\"",
        ),
        (
            "key_file = \"k\"\n",
            "line 3: listener.key_file has no use without transport = \"tls\" or \"wss\"",
        ),
        (
            "origins = [\"*\"]\n",
            "line 3: listener.origins has no use without transport = \"ws\" or \"wss\"",
        ),
        (
            "mode = \"0600\"\n",
            "line 3: listener.mode has no use without an address that is a Unix socket",
        ),
        (
            "transport = \"ws\"\npaths = [\"ws\"]\n",
            "line 4: listener.paths = [\"ws\"] is not allowed; it takes a list of paths, such as [\"/\", \"/ws\"]",
        ),
        (
            "transport = \"ws\"\norigins = [\"https://a.example/\"]\n",
            "line 4: listener.origins = [\"https://a.example/\"] is not allowed; it takes a list of origins, such as \
             [\"https://app.example\"], or [\"*\"]",
        ),
    ] {
        assert_eq!(error(keys), format!("test.toml, {expected}"));
    }
    for (address, keys) in [
        ("unix:", ""),
        ("unix:/run/s", "mode = \"0900\"\n"),
        ("unix:/run/s", "mode = 600\n"),
        ("unix:/run/s", "transport = \"tls\"\n"),
    ] {
        read(&format!("[[listener]]\naddress = \"{address}\"\n{keys}")).expect_err(keys);
    }
    let twice = "[[listener]]\naddress = \"unix:/run/s\"\n".repeat(2);
    assert!(matches!(
        only(&read(&twice).unwrap_err()),
        ConfigError::ListenerTwice { .. }
    ));
    // Who may reach a socket of the file system is said by its mode.
    assert!(open.refuse_exposed(true).is_ok());
}

#[test]
fn the_default_address_is_for_a_broker_that_is_told_no_other() {
    let load = |text: &str, listen: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.toml");
        std::fs::write(&file, text).unwrap();
        let overrides = Overrides {
            file: Some(file),
            listen: listen
                .split_whitespace()
                .map(|text| text.parse().unwrap())
                .collect(),
            ..Overrides::default()
        };
        let config = Config::load(overrides, []).map_err(|error| error.to_string())?;
        let addresses = config
            .every_listener()
            .map(|listener| listener.address.to_string());
        Ok::<_, String>(addresses.collect::<Vec<_>>().join(" "))
    };
    let listener = "[[listener]]\naddress = \"127.0.0.1:5\"\n";
    assert_eq!(load("", "").unwrap(), "127.0.0.1:61613");
    assert_eq!(load(listener, "").unwrap(), "127.0.0.1:5");
    assert_eq!(load(listener, "127.0.0.1:6").unwrap(), "127.0.0.1:6 127.0.0.1:5");
    let both = format!("[server]\nlisten = [\"127.0.0.1:7\"]\n{listener}");
    assert_eq!(load(&both, "").unwrap(), "127.0.0.1:7 127.0.0.1:5");
    let unplaced = |error: String| error.split_once(", line 1: ").expect("a place").1.to_owned();
    assert_eq!(
        unplaced(load(listener, "127.0.0.1:5").unwrap_err()),
        "127.0.0.1:5 is listened on twice: name it once, in server.listen or in a [[listener]]"
    );
    assert_eq!(
        load(&format!("{listener}{listener}"), "")
            .unwrap_err()
            .split_once(", line ")
            .and_then(|(_, rest)| rest.split_once(" is")),
        Some((
            "3: 127.0.0.1:5",
            " listened on twice: name it once, in server.listen or in a [[listener]]"
        ))
    );
    let any = listener.replace(":5", ":0");
    assert_eq!(
        load(&format!("{any}{any}"), "").unwrap(),
        "127.0.0.1:0 127.0.0.1:0"
    );
}

#[test]
fn policies_are_read_and_refused_by_line() {
    let config = read(
        "[[policy]]\npattern = \"a.*\"\nack_timeout_ms = 5\n\n[[policy]]\npattern = \"b\"\noverflow = \"drop-head\"\n",
    )
    .unwrap();
    let patterns: Vec<_> = config
        .policies
        .iter()
        .map(|(pattern, _)| pattern.as_str())
        .collect();
    assert_eq!(patterns, ["a.*", "b"]);
    let error = |text: &str| read(text).expect_err(text).to_string();
    assert_eq!(
        error("[policy]\npattern = \"a\"\n"),
        "test.toml, line 1: policy is a list of tables: write [[policy]] and the keys of each below"
    );
    assert!(error("\n[[policy]]\nack_timeout_ms = 1\n").starts_with("test.toml, line 2: a [[policy]] needs"));
    assert!(error("[[policy]]\npattern = \"a\"\nttl = 1\n").starts_with(
        "test.toml, line 3: unknown key policy.ttl; keys of [[policy]] are pattern, deliveries_failed_max, "
    ));
    assert_eq!(
        error("[[policy]]\npattern = \"a\"\noverflow = \"x\"\n"),
        "test.toml, line 3: policy.overflow = \"x\" is not allowed; it takes refuse, drop-head, dead-letter"
    );
    for pattern in ["\"\"", "1", "\"a.>.b\""] {
        let text = format!("[[policy]]\npattern = {pattern}\n");
        assert!(
            error(&text).contains(&format!("policy.pattern = {pattern} is not allowed")),
            "{text}"
        );
    }
    let twice = "[[policy]]\npattern = \"a.#\"\n[[policy]]\npattern = \"a.>\"\n";
    assert_eq!(
        error(twice),
        "test.toml, line 4: policy.pattern = \"a.>\" is not allowed; it takes each pattern once"
    );
}

#[test]
fn variables_are_distinct() {
    let names: BTreeSet<_> = keys().map(Key::variable).collect();
    assert_eq!(names.len(), keys().count());
    assert!(!names.contains(FILE_VARIABLE));
}

#[test]
fn every_number_has_its_bounds() {
    for key in keys() {
        let Some((min, max)) = key.range() else { continue };
        let mut config = Config::default();
        for inside in [min, max] {
            assert!(key.set(&mut config, &Value::Number(inside)), "{}", key.name);
        }
        for outside in [min.checked_sub(1), max.checked_add(1)].into_iter().flatten() {
            let before = config.clone();
            assert!(!key.set(&mut config, &Value::Number(outside)), "{}", key.name);
            assert_eq!(config, before);
        }
    }
}

#[test]
fn refusals_name_the_place_and_what_is_allowed() {
    check_file(
        "[log]\nformat = \"text\"\ncolor = true\n",
        "test.toml, line 3: unknown key log.color; keys of [log] are format, level",
    );
    check_file(
        "\n[logs]\n",
        "test.toml, line 2: unknown section [logs]; sections are [server], [security], [log], [heart_beat], [store], [limits], [[listener]], [[policy]], [[rule]]",
    );
    check_file(
        "[log]\nformat = \"\"\"a\nb\"\"\"\n",
        "test.toml, line 2: log.format = \"\"\"a\\nb\"\"\" is not allowed; it takes text, json",
    );
    check_file(
        "[log]\n\"a\\u001b\" = 1\n",
        "test.toml, line 2: unknown key log.a\\u{1b}; keys of [log] are format, level",
    );
    check_file(
        "log = 1\n",
        "test.toml, line 1: log is a section: write [log] and its keys below",
    );
    check_file(
        "[log]\nlevel = \"loud\"\n",
        "test.toml, line 2: log.level = \"loud\" is not allowed; it takes error, warn, info, debug, trace",
    );
    check_file(
        "[limits]\n\nlinger_ms_max = 0\n",
        "test.toml, line 3: limits.linger_ms_max = 0 is not allowed; it takes a whole number from 1 to 86400000",
    );
    for wrong in ["-1", "1.5", "\"1\"", "99999999999999999999", "true", "[1]"] {
        let error = read(&format!("[limits]\nlinger_ms_max = {wrong}\n")).expect_err(wrong);
        assert!(
            error
                .to_string()
                .contains(&format!("linger_ms_max = {wrong} is not")),
            "{error}"
        );
    }
    check_file(
        "[limits]\ntopic_drop_oldest = 1\n",
        "test.toml, line 2: limits.topic_drop_oldest = 1 is not allowed; it takes true or false",
    );
    for wrong in [
        "[]",
        "[\"here\"]",
        "[\"example.org:1\"]",
        "\"127.0.0.1:1\"",
        "[1]",
        "[\"127.0.0.1\"]",
    ] {
        let error = read(&format!("[server]\nlisten = {wrong}\n")).expect_err(wrong);
        assert!(
            error.to_string().contains("it takes a list of IP:PORT"),
            "{error}"
        );
    }
    check_file(
        "[server]\ndata_dir = \"\"\n",
        "test.toml, line 2: server.data_dir = \"\" is not allowed; it takes the path of a folder",
    );
    check_file(
        "[limits]\nheader_line_bytes_max = 100_000\n",
        "test.toml, line 2: limits.header_line_bytes_max = 100000 is more than limits.header_block_bytes_max = 65536; it may be at \
         most that",
    );
    assert!(
        read("[limits\n")
            .unwrap_err()
            .to_string()
            .starts_with("test.toml, line 1: ")
    );
    assert!(
        read("[log]\nlevel = \"info\"\nlevel = \"warn\"\n")
            .unwrap_err()
            .to_string()
            .starts_with("test.toml, line 3: ")
    );
}

#[test]
fn variables_are_refused_by_name() {
    check_variable(
        "STEADFAST_LIMITS_LINGER_MS_MAX",
        "soon",
        "environment variable STEADFAST_LIMITS_LINGER_MS_MAX: limits.linger_ms_max = soon is not allowed; it takes \
         a whole number from 1 to 86400000",
    );
    let unknown = Config::load(
        Overrides::default(),
        variables(&[("STEADFAST_SERVER_DATA_DIR", "x")]),
    );
    assert!(matches!(
        only(&unknown.unwrap_err()),
        ConfigError::UnknownVariable { name } if name == "STEADFAST_SERVER_DATA_DIR"
    ));
    for (name, value) in [
        ("STEADFAST_DATA_DIR", ""),
        ("STEADFAST_LISTEN", ""),
        ("STEADFAST_LISTEN", "127.0.0.1:1,"),
        ("STEADFAST_LIMITS_TOPIC_DROP_OLDEST", "yes"),
    ] {
        assert!(
            Config::load(Overrides::default(), variables(&[(name, value)])).is_err(),
            "{name}={value}"
        );
    }
}

#[test]
fn every_key_can_come_from_the_environment() {
    let list = [
        ("STEADFAST_LISTEN", "127.0.0.1:0, [::1]:7,localhost:9"),
        ("STEADFAST_DATA_DIR", "elsewhere"),
        ("STEADFAST_LOG_FORMAT", "json"),
        ("STEADFAST_HEART_BEAT_INTERVAL_MS_MIN", "1_000"),
        ("STEADFAST_LIMITS_TOPIC_DROP_OLDEST", "true"),
        ("HOME", "not ours"),
    ];
    let config = Config::load(Overrides::default(), variables(&list)).unwrap();
    let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:0", "[::1]:7", "127.0.0.1:9"]);
    assert_eq!(config.server.data_dir, PathBuf::from("elsewhere"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.heart_beat.interval_ms_min, 1000);
    assert!(config.limits.topic_drop_oldest);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steadfast.toml");
    let text = "server.data_dir = \"file\"\nlog.level = \"warn\"\nlog.format = \"json\"\n";
    std::fs::write(&path, text).unwrap();
    let environment = || {
        variables(&[
            ("STEADFAST_DATA_DIR", "variable"),
            ("STEADFAST_LOG_LEVEL", "debug"),
            ("STEADFAST_CONFIG", path.to_str().unwrap()),
        ])
    };
    let overrides = Overrides {
        data_dir: Some("flag".into()),
        ..Overrides::default()
    };
    let config = Config::load(overrides, environment()).unwrap();
    assert_eq!(config.server.data_dir, PathBuf::from("flag"));
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.limits, Limits::default());

    let overrides = Overrides {
        file: Some(folder.path().join("missing.toml")),
        ..Overrides::default()
    };
    let missing = Config::load(overrides, environment());
    assert!(matches!(
        only(&missing.unwrap_err()),
        ConfigError::Unreadable { .. }
    ));
}

#[test]
fn an_address_others_can_reach_must_be_asked_for() {
    let check = |address: &str, insecure_allow_anonymous, open| {
        let server = Server {
            listen: vec!["127.0.0.1:0".parse().unwrap(), address.parse().unwrap()],
            insecure_allow_anonymous,
            ..Server::default()
        };
        let config = Config {
            server,
            ..Config::default()
        };
        config.refuse_exposed(open)
    };
    for address in [
        "0.0.0.0:61613",
        "192.168.1.2:0",
        "[::]:61613",
        "[::ffff:10.0.0.1]:1",
    ] {
        let refused = check(address, false, true);
        assert!(
            matches!(refused, Err(ConfigError::Exposed { address: found }) if found.to_string() == address)
        );
        check(address, true, true).unwrap();
        // Where there are users, whoever reaches it has to log in.
        check(address, false, false).unwrap();
    }
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:1"] {
        check(address, false, true).unwrap();
    }
    // A listener that lets anybody in has to be asked for whether there are users or not; one that does not, never.
    let with = |authentication: &str, open| {
        let listener = format!("[[listener]]\naddress = \"0.0.0.0:1\"\nauthentication = {authentication}\n");
        read(&listener).unwrap().refuse_exposed(open).is_ok()
    };
    for open in [true, false] {
        assert!(!with("[\"password\", \"none\"]", open));
        assert!(with("[\"password\", \"jwt\"]", open));
    }
}

#[test]
fn who_may_come_in_is_read() {
    let config = read(
        "[server]\ndata_dir = \"/var/lib/x\"\n[security]\njwt_keys = [\"RS256:/etc/a:b.pem\", \"HS256:key\"]\njwt_audience = \"us\"\n\
         [[listener]]\naddress = \"127.0.0.1:1\"\nauthentication = [\"certificate\", \"none\"]\n[[listener]]\naddress = \"127.0.0.1:2\"\n",
    )
    .unwrap();
    assert_eq!(config.users_file(), PathBuf::from("/var/lib/x/users.toml"));
    let keys: Vec<_> = config
        .security
        .jwt_keys
        .iter()
        .map(|key| (key.algorithm.name(), key.file.to_str().unwrap()))
        .collect();
    assert_eq!(keys, [("RS256", "/etc/a:b.pem"), ("HS256", "key")]);
    assert_eq!(config.security.jwt_audience, "us");
    let methods: Vec<_> = config
        .every_listener()
        .map(|listener| listener.authentication)
        .collect();
    let first = Methods::Only([Method::Certificate, Method::None].into());
    assert_eq!(methods[1..], [first, Methods::Configured]);
    let named = read("[security]\nusers_file = \"/etc/users.toml\"\n").unwrap();
    assert_eq!(named.users_file(), PathBuf::from("/etc/users.toml"));

    check_file(
        "[security]\njwt_keys = [\"none:/etc/x\"]\n",
        "test.toml, line 2: security.jwt_keys = [\"none:/etc/x\"] is not allowed; it takes a list of ALGORITHM:FILE with \
         HS256, RS256 or ES256, such as \"RS256:/etc/steadfast/issuer.pem\"",
    );
    for wrong in ["[]", "[\"passwd\"]", "\"password\"", "[1]"] {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:1\"\nauthentication = {wrong}\n");
        let error = read(&text).unwrap_err().to_string();
        let expected = "it takes a list of password, certificate, unix, jwt, none";
        assert!(
            error.starts_with("test.toml, line 3: ") && error.contains(expected),
            "{error}"
        );
    }
    let none = Config::load(
        Overrides::default(),
        variables(&[("STEADFAST_SECURITY_JWT_KEYS", "")]),
    )
    .unwrap();
    assert_eq!(none.security.jwt_keys, []);
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_lines() {
    let text = "\
[limits]
body_bytes_max = 0
bodies_max = 1
header_line_bytes_max = 100_000

[server]
listen = [\"127.0.0.1:1\", \"nowhere\"]
broken = = 1

[mystery]
key = 1

[[listener]]
address = \"127.0.0.1:2\"
transport = \"tls\"
dialect = \"openmq\"
tls = true

[[policy]]
ack_timeout_ms = \"soon\"
ttl = 1

[[listener]]
address = \"127.0.0.1:3\"

[[listener]]
address = \"127.0.0.1:3\"
";
    let mistakes = read(text).expect_err(text).to_string();
    let told: Vec<_> = mistakes
        .lines()
        .map(|line| {
            let (place, rest) = line
                .strip_prefix("test.toml, line ")
                .unwrap()
                .split_once(": ")
                .unwrap();
            (place.parse::<u32>().unwrap(), rest)
        })
        .collect();
    let expected = [
        (2, "limits.body_bytes_max = 0 is not allowed"),
        (3, "unknown key limits.bodies_max"),
        (
            4,
            "limits.header_line_bytes_max = 100000 is more than limits.header_block_bytes_max",
        ),
        (7, "server.listen = [\"127.0.0.1:1\", \"nowhere\"] is not allowed"),
        (8, "not valid TOML"),
        (10, "unknown section [mystery]"),
        (
            13,
            "a [[listener]] with this transport and client_certificate needs the key certificate_file",
        ),
        (
            13,
            "a [[listener]] with this transport and client_certificate needs the key key_file",
        ),
        (16, "listener.dialect = \"openmq\" is not allowed"),
        (17, "unknown key listener.tls"),
        (19, "a [[policy]] needs the key pattern"),
        (20, "policy.ack_timeout_ms = \"soon\" is not allowed"),
        (21, "unknown key policy.ttl"),
        (26, "127.0.0.1:3 is listened on twice"),
    ];
    assert_eq!(told.len(), expected.len(), "{mistakes}");
    for ((line, text), (expected_line, begin)) in told.into_iter().zip(expected) {
        assert_eq!(line, expected_line, "{mistakes}");
        assert!(text.starts_with(begin), "{text}: {begin}");
    }
}

#[test]
fn each_value_says_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steadfast.toml");
    std::fs::write(&path, "[log]\nlevel = \"warn\"\n\n[limits]\nlinger_ms_max = 5\n").unwrap();
    let overrides = Overrides {
        file: Some(path.clone()),
        data_dir: Some("flag".into()),
        ..Overrides::default()
    };
    let environment = variables(&[("STEADFAST_LOG_LEVEL", "debug")]);
    let (loaded, mistakes) = Loaded::read(overrides, environment);
    mistakes.none().unwrap();
    let origin = |path: &str| {
        let key = keys().find(|key| key.path() == path).expect(path);
        (
            key.get(&loaded.config).to_string(),
            loaded.origins.of(key).to_string(),
        )
    };
    let file = |line| format!("{}, line {line}", path.display());
    for (key, value, from) in [
        (
            "log.level",
            "\"debug\"",
            "environment variable STEADFAST_LOG_LEVEL".to_owned(),
        ),
        ("log.format", "\"text\"", "default".to_owned()),
        ("limits.linger_ms_max", "5", file(5)),
        ("server.data_dir", "\"flag\"", "--data-dir".to_owned()),
        ("server.listen", "[\"127.0.0.1:61613\"]", "default".to_owned()),
    ] {
        assert_eq!(origin(key), (value.to_owned(), from), "{key}");
    }
}

#[test]
fn what_a_key_says_of_a_configuration_sets_it() {
    let text: String = SAMPLE
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some((name, value)) if !line.starts_with('#') => {
                // Another value of the same form, where there is one near.
                let number = value.replace('_', "").parse::<u64>().map(|number| number + 1);
                let value = number.map_or(value.to_owned(), |number| number.to_string());
                format!("{name} = {value}\n").replace("= false", "= true")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let changed = read(&text).unwrap();
    let mut copied = Config::default();
    for key in keys() {
        assert!(key.set(&mut copied, &key.get(&changed)), "{}", key.path());
    }
    assert_eq!(copied, changed);
    assert_ne!(copied, Config::default());
}

#[test]
fn what_holds_at_once_and_what_at_the_next_start() {
    let running = read("[limits]\nlinger_ms_max = 5\n").unwrap();
    let changes = |text: &str| Changes::between(&running, &read(text).unwrap());
    let same = changes("[limits]\nlinger_ms_max = 5\n");
    assert_eq!(
        (same.taken.len(), same.restart.len(), &same.running),
        (0, 0, &running)
    );
    let all = changes(
        "[server]\nlisten = [\"127.0.0.1:1\"]\nshutdown_ms_max = 7\n[log]\nlevel = \"warn\"\nformat = \"json\"\n\
         [limits]\ncommit_bytes_max = 5000\nbody_bytes_max = 9\n[[listener]]\naddress = \"127.0.0.1:2\"\n\
         [[policy]]\npattern = \"a\"\n",
    );
    let taken = [
        "server.shutdown_ms_max",
        "log.level",
        "limits.body_bytes_max",
        "limits.linger_ms_max",
        "policy",
    ];
    assert_eq!(all.taken, taken);
    let restart = [
        "server.listen",
        "log.format",
        "limits.commit_bytes_max",
        "listener",
    ];
    assert_eq!(all.restart, restart);
    assert_eq!(all.running.limits.body_bytes_max, 9);
    assert_eq!(all.running.limits.linger_ms_max, Limits::default().linger_ms_max);
    assert_eq!(
        all.running.limits.commit_bytes_max,
        Limits::default().commit_bytes_max
    );
    assert_eq!(all.running.server.listen, running.server.listen);
    assert_eq!(all.running.policies.len(), 1);
    // Read again, it still waits, and nothing else is new.
    let again = Changes::between(&all.running, &all.running);
    assert!(again.taken.is_empty() && again.restart.is_empty());
    // A body may not be longer than the room for bodies, which is what it was until the next start.
    let room = Limits::default().receiving_bytes_max;
    let (body, room) = (room + 1, room + 2);
    let put_off = changes(&format!(
        "[limits]\nlinger_ms_max = 5\nbody_bytes_max = {body}\nreceiving_bytes_max = {room}\n"
    ));
    assert_eq!(put_off.running, running);
    let restart = ["limits.receiving_bytes_max", "limits.body_bytes_max"];
    assert_eq!(
        (put_off.taken.len(), &put_off.restart[..]),
        (0, &restart.map(str::to_owned)[..])
    );
}

#[test]
fn the_sample_says_which_limits_wait_for_a_start() {
    let (head, _) = SAMPLE.split_once("\n\n[server]").expect("the sample has a head");
    let (_, list) = head
        .split_once("Of [limits], these")
        .expect("the head has the list");
    let words = list.split(|c: char| !c.is_alphanumeric() && c != '_');
    let listed: BTreeSet<_> = words.filter(|word| word.contains('_')).collect();
    assert_eq!(listed, BTreeSet::from(reload::LIMITS_AT_START));
    for name in reload::LIMITS_AT_START {
        assert!(
            keys().any(|key| key.section == "limits" && key.name == name),
            "{name}"
        );
    }
}

#[test]
fn a_misspelt_key_is_told_what_it_may_mean() {
    for (text, key) in [
        ("[limits]\nbody_byte_max = 1\n", "body_bytes_max"),
        ("[server]\nlisten_metrics = 1\n", "none"),
        // Of another section: it is named, and so are the keys that belong here.
        ("[server]\nbody_bytes_max = 1\n", "body_bytes_max"),
        (
            "[[policy]]\npattern = \"a\"\noverflows = \"refuse\"\n",
            "overflow",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\ndialekt = \"rabbitmq\"\n",
            "dialect",
        ),
    ] {
        let error = read(text).expect_err(text).to_string();
        let expected = format!(" (did you mean {key}?)");
        assert_eq!(error.contains(&expected), key != "none", "{error}");
        assert_eq!(error.contains("did you mean"), key != "none", "{error}");
    }
}

proptest::proptest! {
    /// What is cut out of a file, and put into it, is refused by lines or read; and nothing that strict TOML refuses is read.
    #[test]
    fn any_text_is_read_or_refused_by_lines(
        cuts in proptest::collection::vec((0..SAMPLE.len(), 0..40_usize, "[\\[\\]\"'=#a-z0-9_.\n{} -]{0,6}"), 1..4),
        with_examples in proptest::bool::ANY,
    ) {
        let mut text = match with_examples {
            true => SAMPLE.lines().map(|line| match line.strip_prefix('#') {
                Some(example) if !example.starts_with(' ') => format!("{example}\n"),
                _ => format!("{line}\n"),
            }).collect(),
            false => SAMPLE.to_owned(),
        };
        for (at, len, put) in cuts {
            let (from, to) = (at.min(text.len()), (at + len).min(text.len()));
            if text.is_char_boundary(from) && text.is_char_boundary(to) {
                text.replace_range(from..to, &put);
            }
        }
        match read(&text) {
            Ok(_) => proptest::prop_assert!(DeTable::parse(&text).is_ok()),
            Err(mistakes) => {
                proptest::prop_assert!(mistakes.iter().count() > 0);
                for mistake in mistakes.iter() {
                    let line = mistake.line();
                    proptest::prop_assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
                }
            }
        }
    }
}
