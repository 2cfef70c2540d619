//! `[[listener]]`: where STOMP is accepted, over what, and what holds for the connections that come in there.
//!
//! # Invariants
//! - A key that its transport has no use for is refused.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::{ADDRESS_FORM, ConfigError, Origin, parse_address};
use crate::base::{Dialect, Method, Methods};

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix:";

/// One place to accept STOMP, and what holds for the connections that come in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// Whose reading of a header counts where brokers differ.
    pub dialect: Dialect,
    /// How somebody may prove who they are.
    pub authentication: Methods,
    /// With TLS, if it is to be spoken.
    pub tls: Option<Tls>,
    /// With WebSocket, if it is to be spoken.
    pub websocket: Option<WebSocket>,
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address of the network; port 0 takes any free port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Who may connect, as the permissions of the socket's file.
        mode: u32,
    },
}

/// What a listener with TLS shows, and what it wants to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM: the certificate, then those between it and its authority.
    pub certificate_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// What is asked of clients.
    pub client: ClientCertificate,
    /// The name in a client's certificate that is its login name.
    pub login: CertificateName,
}

/// What is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No certificate.
    None,
    /// One of this authority (a PEM file), if they have any.
    Optional(PathBuf),
    /// One of this authority.
    Required(PathBuf),
}

/// A name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateName {
    /// The one CN of the subject.
    #[default]
    CommonName,
    /// The whole subject, as RFC 4514 writes it.
    Subject,
    /// The first DNS name among the alternative names.
    Dns,
    /// The first e-mail address among them.
    Email,
    /// The first URI among them.
    Uri,
}

impl CertificateName {
    /// Every name.
    pub const ALL: [Self; 5] = [Self::CommonName, Self::Subject, Self::Dns, Self::Email, Self::Uri];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::CommonName => "common-name",
            Self::Subject => "subject",
            Self::Dns => "dns",
            Self::Email => "email",
            Self::Uri => "uri",
        }
    }

    fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.name() == text)
    }
}

/// Which requests a listener with WebSocket takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// Paths; a query behind them is not looked at.
    pub paths: Vec<String>,
    /// What `Origin` may be, as browsers write it (`https://app.example`), or [`Self::ANY`]. A request without the header
    /// comes from no page and needs no entry.
    pub origins: Vec<String>,
}

impl WebSocket {
    /// Any origin.
    pub const ANY: &str = "*";
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            paths: vec!["/".to_owned(), "/ws".to_owned()],
            origins: Vec::new(),
        }
    }
}

impl Listener {
    /// What it is over.
    pub fn transport(&self) -> &'static str {
        match (&self.address, &self.tls, &self.websocket) {
            (Address::Unix { .. }, ..) => "unix",
            (_, None, None) => "tcp",
            (_, Some(_), None) => "tls",
            (_, None, Some(_)) => "ws",
            (_, Some(_), Some(_)) => "wss",
        }
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: Address::Tcp(address),
            dialect: Dialect::default(),
            authentication: Methods::default(),
            tls: None,
            websocket: None,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.tls.is_some() || self.websocket.is_some() {
            write!(f, ", {}", self.transport())?;
        }
        match self.dialect {
            Dialect::Steadfast => Ok(()),
            dialect => write!(f, ", dialect {}", dialect.name()),
        }
    }
}

impl Address {
    /// What a socket's permissions are unless something else is written.
    pub const MODE: u32 = 0o600;

    /// The address, unless it is a socket in the file system.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    fn parse(text: &str, mode: u32) -> Option<Self> {
        match text.strip_prefix(UNIX) {
            Some("") => None,
            Some(path) => Some(Self::Unix {
                path: path.into(),
                mode,
            }),
            None => parse_address(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { path, .. } => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The keys, in the order in which they are explained.
const ADDRESS: &str = "address";
const DIALECT: &str = "dialect";
const AUTHENTICATION: &str = "authentication";
const TRANSPORT: &str = "transport";
const MODE: &str = "mode";
const CERTIFICATE: &str = "certificate_file";
const KEY: &str = "key_file";
const CLIENT: &str = "client_certificate";
const CLIENT_CA: &str = "client_ca_file";
const LOGIN: &str = "client_certificate_login";
const PATHS: &str = "paths";
const ORIGINS: &str = "origins";

/// Every key, for messages.
pub(super) const KEYS: [&str; 12] = [
    ADDRESS,
    DIALECT,
    AUTHENTICATION,
    TRANSPORT,
    MODE,
    CERTIFICATE,
    KEY,
    CLIENT,
    CLIENT_CA,
    LOGIN,
    PATHS,
    ORIGINS,
];

/// Each with whether TLS, and whether WebSocket, is spoken.
const TRANSPORTS: [(&str, (bool, bool)); 4] = [
    ("tcp", (false, false)),
    ("tls", (true, false)),
    ("ws", (false, true)),
    ("wss", (true, true)),
];
const CLIENTS: [&str; 3] = ["none", "optional", "required"];
const PATHS_FORM: &str = "a list of paths, such as [\"/\", \"/ws\"]";
const ORIGINS_FORM: &str = "a list of origins, such as [\"https://app.example\"], or [\"*\"]";

/// What [`Address`] takes, for messages.
pub(super) fn address_form() -> String {
    format!("{ADDRESS_FORM}, or unix:PATH")
}

/// A table's values, each with its place, taken one by one; what is wrong with them is noted.
struct Table<'a, 'd, F> {
    text: &'a str,
    table: &'a DeTable<'d>,
    at: &'a F,
    mistakes: &'a mut Vec<ConfigError>,
}

impl<F: Fn(usize) -> Origin> Table<'_, '_, F> {
    fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a key, if it is there in its form.
    fn read<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Option<T>,
        allowed: impl FnOnce() -> String,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        let read = parse(value.get_ref());
        if read.is_none() {
            let found = self.text.get(value.span()).unwrap_or_default();
            let at = (self.at)(value.span().start);
            self.mistakes
                .push(ConfigError::bad(at, super::LISTENER, key, found, allowed()));
        }
        read
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let parse = |value: &DeValue<'_>| {
            let path = value.as_str().filter(|path| !path.is_empty())?;
            Some(PathBuf::from(path))
        };
        self.read(key, parse, || "the path of a file".to_owned())
    }

    /// The same, of a key that must be there.
    fn needed_path(&mut self, key: &'static str, begin: &Origin) -> Option<PathBuf> {
        if !self.has(key) {
            self.mistakes.push(ConfigError::ListenerKeyMissing {
                at: begin.clone(),
                key,
            });
        }
        self.path(key)
    }

    fn texts(&mut self, key: &str, fits: impl Fn(&str) -> bool, form: &str) -> Option<Vec<String>> {
        let parse = |value: &DeValue<'_>| {
            let items = value.as_array()?.iter();
            items
                .map(|item| {
                    item.get_ref()
                        .as_str()
                        .filter(|text| fits(text))
                        .map(str::to_owned)
                })
                .collect()
        };
        self.read(key, parse, || form.to_owned())
    }

    /// Refuses keys that are of no use here.
    fn refuse(&mut self, keys: &[&'static str], needs: &'static str) {
        for (name, _) in self.table {
            if let Some(key) = keys.iter().find(|key| *key == name.get_ref()) {
                self.mistakes.push(ConfigError::ListenerKeyIdle {
                    at: (self.at)(name.span().start),
                    key,
                    needs,
                });
            }
        }
    }
}

/// Reads one table, which begins at `begin`. `None` if anything is wrong with it: every mistake is noted.
pub(super) fn read(
    text: &str,
    table: &DeTable<'_>,
    begin: Origin,
    at: &impl Fn(usize) -> Origin,
    mistakes: &mut Vec<ConfigError>,
) -> Option<Listener> {
    let before = mistakes.len();
    let mut table = Table {
        text,
        table,
        at,
        mistakes,
    };
    let listener = read_keys(&mut table, &begin);
    listener.filter(|_| mistakes.len() == before)
}

fn read_keys<F: Fn(usize) -> Origin>(table: &mut Table<'_, '_, F>, begin: &Origin) -> Option<Listener> {
    for (name, _) in table.table {
        if !KEYS.contains(&&**name.get_ref()) {
            table.mistakes.push(ConfigError::UnknownListenerKey {
                at: (table.at)(name.span().start),
                name: name.get_ref().to_string(),
            });
        }
    }
    let octal = |value: &DeValue<'_>| {
        let mode = u32::from_str_radix(value.as_str()?, 8).ok()?;
        (mode <= 0o777).then_some(mode)
    };
    let mode = table.read(MODE, octal, || "permissions, such as \"0660\"".to_owned());
    let address = table.read(
        ADDRESS,
        |value| Address::parse(value.as_str()?, mode.unwrap_or(Address::MODE)),
        address_form,
    );
    if !table.has(ADDRESS) {
        table.mistakes.push(ConfigError::NoAddress { at: begin.clone() });
    }
    let names = || Dialect::ALL.map(Dialect::name).join(", ");
    let dialect = table.read(DIALECT, |value| Dialect::named(value.as_str()?), names);
    let methods = |value: &DeValue<'_>| {
        let methods = value.as_array()?.iter();
        let methods: Option<Box<[_]>> = methods
            .map(|item| Method::named(item.get_ref().as_str()?))
            .collect();
        methods.filter(|methods| !methods.is_empty())
    };
    let methods = table.read(AUTHENTICATION, methods, || {
        format!("a list of {}", Method::ALL.map(Method::name).join(", "))
    });
    let over = match address {
        Some(Address::Unix { .. }) => {
            table.refuse(&[TRANSPORT], "an address of the network");
            Some((false, false))
        }
        _ => {
            if address.is_some() {
                table.refuse(&[MODE], "an address that is a Unix socket");
            }
            let transport = |value: &DeValue<'_>| {
                let known = |(name, _): &&(&str, _)| Some(*name) == value.as_str();
                TRANSPORTS.iter().find(known).map(|(_, over)| *over)
            };
            let names = || TRANSPORTS.map(|(name, _)| name).join(", ");
            match table.has(TRANSPORT) {
                true => table.read(TRANSPORT, transport, names),
                false => Some((false, false)),
            }
        }
    };
    // Without its transport, nothing can be said of the keys for one.
    let (tls, websocket) = over?;
    if !tls {
        table.refuse(
            &[CERTIFICATE, KEY, CLIENT, CLIENT_CA, LOGIN],
            "transport = \"tls\" or \"wss\"",
        );
    }
    if !websocket {
        table.refuse(&[PATHS, ORIGINS], "transport = \"ws\" or \"wss\"");
    }
    let tls = tls.then(|| read_tls(table, begin));
    let websocket = websocket.then(|| read_websocket(table));
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    Some(Listener {
        address: address?,
        dialect: dialect.unwrap_or_default(),
        authentication: methods.map_or(Methods::default(), Methods::Only),
        tls,
        websocket,
    })
}

fn read_tls<F: Fn(usize) -> Origin>(table: &mut Table<'_, '_, F>, begin: &Origin) -> Option<Tls> {
    let client = |value: &DeValue<'_>| {
        let client = value.as_str()?;
        CLIENTS.into_iter().find(|known| *known == client)
    };
    let asked = match table.has(CLIENT) {
        true => table.read(CLIENT, client, || CLIENTS.join(", ")),
        false => Some("none"),
    };
    let client = match asked {
        Some("none") => {
            let asked = "client_certificate = \"optional\" or \"required\"";
            table.refuse(&[CLIENT_CA, LOGIN], asked);
            Some(ClientCertificate::None)
        }
        Some("optional") => table
            .needed_path(CLIENT_CA, begin)
            .map(ClientCertificate::Optional),
        Some(_) => table
            .needed_path(CLIENT_CA, begin)
            .map(ClientCertificate::Required),
        None => None,
    };
    let names = || CertificateName::ALL.map(CertificateName::name).join(", ");
    let login = table.read(LOGIN, |value| CertificateName::named(value.as_str()?), names);
    let certificate_file = table.needed_path(CERTIFICATE, begin);
    let key_file = table.needed_path(KEY, begin);
    Some(Tls {
        certificate_file: certificate_file?,
        key_file: key_file?,
        client: client?,
        login: login.unwrap_or_default(),
    })
}

fn read_websocket<F: Fn(usize) -> Origin>(table: &mut Table<'_, '_, F>) -> WebSocket {
    let default = WebSocket::default();
    let is_path = |path: &str| path.starts_with('/') && !path.contains(['?', '#', ' ']);
    let paths = table.texts(PATHS, is_path, PATHS_FORM);
    // A browser writes no path behind an origin, and one that is written here would never be met.
    let is_origin = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        origin == WebSocket::ANY || host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
    };
    let origins = table.texts(ORIGINS, is_origin, ORIGINS_FORM);
    WebSocket {
        paths: paths.unwrap_or(default.paths),
        origins: origins.unwrap_or(default.origins),
    }
}
