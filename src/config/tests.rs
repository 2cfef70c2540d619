use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::*;
use crate::base::{Methods, SETTINGS};

fn read(text: &str) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.read_text(Path::new("test.toml"), text)?;
    config.check()?;
    Ok(config)
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
        Ok::<_, ConfigError>(config.listeners.remove(0))
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
    assert!(matches!(read(&twice), Err(ConfigError::ListenerTwice { .. })));
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
    assert_eq!(
        load(listener, "127.0.0.1:5").unwrap_err(),
        "127.0.0.1:5 is listened on twice: name it once, in server.listen or in a [[listener]]"
    );
    assert_eq!(
        load(&format!("{listener}{listener}"), "")
            .unwrap_err()
            .split(' ')
            .next(),
        Some("127.0.0.1:5")
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
        "test.toml, line 2: unknown section [logs]; sections are [server], [security], [log], [heart_beat], [store], [limits], [[listener]], [[policy]]",
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
        "limits.header_line_bytes_max = 100000 is more than limits.header_block_bytes_max = 65536; it may be at \
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
        unknown,
        Err(ConfigError::UnknownVariable { name }) if name == "STEADFAST_SERVER_DATA_DIR"
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
    assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
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
