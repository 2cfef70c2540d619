//! What `send` and `receive` have in common: which broker, as whom, and headers.

use std::time::Duration;

use clap::Args;

use crate::client::Target;
use crate::config::PASSCODE_VARIABLE;

/// Which broker, any that speaks STOMP 1.2, and as whom.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Address of the broker
    #[arg(long, default_value = "127.0.0.1:61613", value_name = "HOST:PORT")]
    addr: String,
    /// Login name
    #[arg(long, value_name = "NAME")]
    login: Option<String>,
    /// Passcode; better in the variable STEADFAST_PASSCODE, since others can see arguments
    #[arg(long)]
    passcode: Option<String>,
    /// Virtual host, sent as `host` [default: the host of the address]
    #[arg(long)]
    host: Option<String>,
}

impl TargetArgs {
    /// With how long an answer may take.
    pub(super) fn target(&self, timeout: Duration) -> Target {
        let variable = || std::env::var_os(PASSCODE_VARIABLE);
        let passcode = self.passcode.clone();
        Target {
            login: self.login.clone(),
            passcode: passcode.or_else(|| variable().map(|text| text.to_string_lossy().into_owned())),
            host: self.host.clone(),
            timeout,
            ..Target::new(&self.addr)
        }
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
