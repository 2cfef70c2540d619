//! `steadfast reload`: the running broker reads its configuration again.

use std::fmt::Write;

use clap::Args;

use super::api_client::{ApiClient, Route};
use super::show::escaped;
use super::{Failure, StoreArgs, print, print_json};
use crate::api::{Reload, Reloaded};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object, as the API has it
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
The broker reads the file and the variables that it was started with, and the certificates of its listeners, as it does at SIGHUP; \
--config here only says where its data folder is. Policies, limits, heart-beats, the log level and shutdown_ms_max hold at once, for connections \
those that come from then on; what waits for the next start is named. Mistakes in the file change nothing.

Examples:
  steadfast reload
  steadfast reload --data-dir /var/lib/steadfast --json | jq -r '.restart[]'

Exit codes: 0 well, 1 the broker found mistakes or a certificate that it cannot use, no broker runs there, or a fault, 2 wrong usage \
or configuration.";

pub(super) fn run(args: ReloadArgs) -> Result<(), Failure> {
    let reloaded: Reloaded = ApiClient::new(args.store)?.post(Route::new(&["reload"]), &Reload {})?;
    let told = match args.json {
        true => print_json(&[&reloaded]),
        false => print(lines(&reloaded)),
    };
    match reloaded.failed.is_empty() {
        true => told,
        false => Err(Failure::CertificatesKept(reloaded.failed)),
    }
}

fn lines(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for (what, names) in [
        ("from now on", &reloaded.taken),
        ("at the next start", &reloaded.restart),
        ("certificates read again", &reloaded.certificates),
    ] {
        if !names.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{what}: {}", escaped(&names.join(", ")));
        }
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    text
}
