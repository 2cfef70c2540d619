//! What `send`, `receive` and `bench` have in common: which broker, as whom, and headers.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::base::Secret;
use crate::client::{Target, Tls};
use crate::config::PASSCODE_VARIABLE;

/// Which broker, any that speaks STOMP 1.2, and as whom.
#[derive(Debug, Clone, Args)]
pub(super) struct TargetArgs {
    /// Address of the broker
    #[arg(long, default_value = "127.0.0.1:61613", value_name = "HOST:PORT", value_parser = address)]
    pub(super) addr: String,
    /// Login name
    #[arg(long, value_name = "NAME")]
    login: Option<String>,
    /// Passcode; better in the variable STEADFAST_PASSCODE, since others can see arguments
    #[arg(long, value_parser = secret)]
    passcode: Option<Secret>,
    /// ... or in the first line of this file, such as a JWT, which needs no login name
    #[arg(long, value_name = "FILE", value_parser = secret_in_file, conflicts_with = "passcode")]
    passcode_file: Option<Secret>,
    /// Virtual host, sent as `host` [default: the host of the address]
    #[arg(long)]
    pub(super) host: Option<String>,
    /// Speak TLS, and believe the authorities of the system
    #[arg(long)]
    tls: bool,
    /// ... those in this PEM file instead
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<PathBuf>,
    /// Show this certificate (PEM) to a broker that asks for one
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// ... with this private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TargetArgs {
    /// `HOST:PORT`, or `LOGIN:PASSCODE@HOST:PORT`.
    pub(super) fn named(text: &str) -> Self {
        let (account, addr) = match text.rsplit_once('@') {
            Some((account, addr)) => (Some(account), addr),
            None => (None, text),
        };
        let (login, passcode) = account
            .map(|account| account.split_once(':').unwrap_or((account, "")))
            .unzip();
        Self {
            addr: addr.to_owned(),
            login: login.map(str::to_owned),
            passcode: passcode.map(Secret::new),
            passcode_file: None,
            host: None,
            tls: false,
            ca: None,
            cert: None,
            key: None,
        }
    }

    /// With how long an answer may take. The variable is for whoever logs in.
    pub(super) fn target(&self, timeout: Duration) -> Target {
        let variable = || std::env::var_os(PASSCODE_VARIABLE).filter(|_| self.login.is_some());
        let passcode = self.passcode.as_ref().or(self.passcode_file.as_ref()).cloned();
        Target {
            login: self.login.clone(),
            passcode: passcode.or_else(|| variable().map(|text| Secret::new(text.into_encoded_bytes()))),
            host: self.host.clone(),
            timeout,
            tls: self
                .tls
                .then(|| Tls::new(self.ca.clone(), self.cert.clone().zip(self.key.clone()))),
            ..Target::new(&self.addr)
        }
    }
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

/// The first line of a file.
fn secret_in_file(path: &str) -> Result<Secret, String> {
    let content = std::fs::read(path)
        .map(Secret::new)
        .map_err(|error| error.to_string())?;
    let line = content
        .reveal()
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(line) => Ok(Secret::new(line.trim_end_matches('\r'))),
        Err(_) => Err("its first line is not UTF-8".to_owned()),
    }
}

/// Accepts `HOST:PORT`; what the host is called, a resolver may know.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT".to_owned()),
    }
}

/// Reads `NAME:VALUE`, which is split at its first colon.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME:VALUE".to_owned()),
    }
}

/// A header that none of these frames' own headers is.
pub(super) fn header_beside(own: &[&str], text: &str) -> Result<(String, String), String> {
    let header = header(text)?;
    if own.contains(&header.0.as_str()) {
        return Err(format!("{} is set by this command", header.0));
    }
    Ok(header)
}
