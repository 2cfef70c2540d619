//! Why a command failed, in one line with a remedy (the mistakes of a configuration: a line each), and its exit code.

use std::error::Error;
use std::fmt::{self, Write};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::api_client::ApiError;
use super::show::counted;
use crate::api::Failed;
use crate::auth::{AuthError, PasswordRule};
use crate::client::ClientError;
use crate::config::ConfigErrors;
use crate::port::Refusal;
use crate::runtime::{ApiCode, RunError};
use crate::store::{BackupError, StoreError};

/// What a command ends with when it does not end well.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration is refused.
    Config(ConfigErrors),
    /// The same, told on standard output.
    ConfigTold(usize),
    /// Users or keys of tokens cannot be read, or not be changed.
    Auth(AuthError),
    /// A new password is refused.
    Password(PasswordRule),
    /// The broker did not start.
    Run { error: RunError, data_dir: PathBuf },
    /// The store cannot be read.
    Store { error: StoreError, data_dir: PathBuf },
    /// A broker that was told to read its configuration again cannot use certificates of listeners; each with why.
    CertificatesKept(Vec<String>),
    /// There is no store to look into.
    NoStore(PathBuf),
    /// `--queue` does not name a queue.
    NoQueue(String),
    /// A check found damage, told on standard output.
    CheckFailed { fault_count: u64, data_dir: PathBuf },
    /// What was to be made is there already.
    Exists(PathBuf),
    /// A repair was killed before its end.
    RepairUnfinished(PathBuf),
    /// What was to be made lies in the data folder that it is made from.
    Inside { path: PathBuf, data_dir: PathBuf },
    /// A repair finds nothing to be saved.
    Unsaved(StoreError),
    /// A repair has saved what it could.
    Gone {
        message_count: u64,
        /// Facts are gone, too, so that there may be more.
        index: bool,
        to: PathBuf,
    },
    /// Standard output failed.
    Output(io::Error),
    /// Standard input failed, or holds too much.
    Input(io::Error),
    /// Signals cannot be waited for.
    Signals(io::Error),
    /// A broker that was connected to, and how far it went.
    Client {
        error: ClientError,
        note: Option<String>,
    },
    /// No broker uses this data folder.
    NoBroker(PathBuf),
    /// A request to a running broker failed.
    Api(ApiError),
    /// A running broker refused a request.
    Refused(Failed),
    /// What was asked was not answered with yes.
    NotConfirmed,
    /// Fewer messages came than were asked for.
    Fewer { came: u64, wanted: u64 },
    /// A file that was to be made.
    Write { path: PathBuf, source: io::Error },
    /// A file that was to be read.
    Read { path: PathBuf, source: io::Error },
    /// A message of a file to be imported.
    Record {
        path: PathBuf,
        number: u64,
        what: String,
    },
    /// A file to be imported has fewer messages than were to be passed over.
    Skip { path: PathBuf, count: u64, skip: u64 },
    /// An import, and how many messages of its file are there.
    Import { failure: Box<Failure>, skip: u64 },
    /// Messages that could not be exported, and the first of them.
    Unread {
        count: u64,
        queue: String,
        sequence: u64,
    },
    /// A backup that cannot be made, or cannot be relied on.
    Backup { error: BackupError, path: PathBuf },
    /// A running broker did not send its backup to the end.
    BackupBrokenOff { path: PathBuf, source: io::Error },
    /// Arguments that each are right and do not go together.
    Usage(&'static str),
    /// Logging could not be set up.
    Telemetry(tracing_subscriber::util::TryInitError),
}

impl From<ConfigErrors> for Failure {
    fn from(error: ConfigErrors) -> Self {
        Self::Config(error)
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl Failure {
    /// A failed connection of which nothing more is to be said.
    pub(super) fn client(error: ClientError) -> Self {
        Self::Client { error, note: None }
    }

    /// A store that no broker uses cannot be read or written.
    pub(super) fn store(error: StoreError, data_dir: &Path) -> Self {
        let data_dir = data_dir.to_owned();
        match &error {
            StoreError::File { source, .. }
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Self::NoStore(data_dir)
            }
            _ => Self::Store { error, data_dir },
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Auth(AuthError::File { operation, .. }) if *operation != "read" => 1,
            Self::Config(_)
            | Self::ConfigTold(_)
            | Self::Auth(_)
            | Self::Password(_)
            | Self::NoStore(_)
            | Self::NoQueue(_)
            | Self::Usage(_)
            | Self::Exists(_)
            | Self::RepairUnfinished(_)
            | Self::Inside { .. } => 2,
            Self::Run { error, .. } => error.exit_code(),
            Self::Store {
                error: StoreError::InUse(_),
                ..
            } => 5,
            Self::Backup {
                error: BackupError::Read(_),
                ..
            } => 1,
            Self::Store { .. }
            | Self::CheckFailed { .. }
            | Self::Backup { .. }
            | Self::Unsaved(_)
            | Self::Gone { .. } => 4,
            Self::Output(_)
            | Self::CertificatesKept(_)
            | Self::Input(_)
            | Self::Signals(_)
            | Self::Client { .. }
            | Self::NoBroker(_)
            | Self::Api(_)
            | Self::Refused(_)
            | Self::NotConfirmed
            | Self::Fewer { .. }
            | Self::Write { .. }
            | Self::Read { .. }
            | Self::Record { .. }
            | Self::Skip { .. }
            | Self::Import { .. }
            | Self::Unread { .. }
            | Self::BackupBrokenOff { .. }
            | Self::Telemetry(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Self::Config(errors) => errors.to_string(),
            Self::ConfigTold(count) => format!("{} in the configuration", counted(*count as u64, "mistake")),
            Self::Auth(error) => super::show::escaped(&chain(error)),
            Self::Password(rule) => chain(rule),
            Self::Run {
                error: RunError::Store(error),
                data_dir,
            }
            | Self::Store { error, data_dir } => store(error, data_dir),
            Self::Run {
                error: error @ RunError::Listen { source, .. },
                ..
            } => match source.kind() {
                ErrorKind::AddrInUse => {
                    format!(
                        "{}; stop the program that listens there, or choose another port with --listen",
                        chain(error)
                    )
                }
                ErrorKind::PermissionDenied => {
                    format!(
                        "{}; ports below 1024 need a privilege: choose a higher one with --listen",
                        chain(error)
                    )
                }
                ErrorKind::AddrNotAvailable => {
                    format!(
                        "{}; choose an address of this machine with --listen",
                        chain(error)
                    )
                }
                _ => chain(error),
            },
            Self::Run {
                error: error @ RunError::DataDir { source, .. },
                ..
            } => folder(chain(error), source),
            Self::Run {
                error: error @ RunError::Descriptors { .. },
                ..
            } => format!("{}; {MORE_FILES}", chain(error)),
            Self::Run { error, .. } => chain(error),
            Self::CertificatesKept(failed) => {
                let line = |why: &String| format!("{}; the old certificate stays", super::show::escaped(why));
                failed.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Self::NoStore(folder) => format!(
                "there is no store in {}; name the data folder of a broker with --data-dir",
                folder.display()
            ),
            Self::NoQueue(text) => format!(
                "'{}' is not the name of a queue; write NAME or /queue/NAME",
                super::show::escaped(text)
            ),
            Self::CheckFailed {
                fault_count,
                data_dir,
            } => format!("{fault_count} faults in the store; {}", remedy(data_dir)),
            Self::Exists(path) => format!(
                "{} is there already; choose a folder that is not, it will be made",
                path.display()
            ),
            Self::RepairUnfinished(path) => format!(
                "{0} is there already: a repair that was killed left it, or one that is under way fills it; if none is, \
                 remove it and repair again",
                path.display()
            ),
            Self::Inside { path, data_dir } => format!(
                "{} lies in the data folder {}, which is only read; choose a place outside of it with --to",
                path.display(),
                data_dir.display()
            ),
            Self::Unsaved(error) => format!("nothing can be saved: {}; restore a backup", chain(error)),
            Self::Gone {
                message_count,
                index,
                to,
            } => format!(
                "what is whole is in {}; {} gone, as listed",
                to.display(),
                match (message_count, index) {
                    (0, _) => "facts of the index are".to_owned(),
                    (count, false) => format!("{} known to be", counted(*count, "message")),
                    (count, true) => format!("{} and facts of the index are", counted(*count, "message")),
                }
            ),
            Self::Output(error) => format!("cannot write to standard output: {}", chain(error)),
            Self::Input(error) => format!("cannot read standard input: {}", chain(error)),
            Self::Signals(error) => format!("cannot wait for signals: {}", chain(error)),
            Self::Client { error, note: None } => client(error),
            Self::Client {
                error,
                note: Some(note),
            } => format!("{}; {note}", client(error)),
            Self::NoBroker(folder) => {
                let folder = folder.display();
                format!(
                    "no broker runs in {folder}; name its folder with --data-dir, start it (`steadfast serve`), or look \
                     into a stopped one with `steadfast inspect --data-dir {folder}`"
                )
            }
            Self::Api(error) => super::show::escaped(&api(error)),
            Self::Refused(failed) if failed.code == ApiCode::ConfigurationInvalid.code() => {
                let lines = failed.message.lines().map(super::show::escaped);
                lines.collect::<Vec<_>>().join("\n")
            }
            Self::Refused(failed) => {
                let hint = match failed.code == Refusal::QueueInUse.code() {
                    true => "; --force does so",
                    false => "",
                };
                super::show::escaped(&format!("{} ({}){hint}", failed.message, failed.code))
            }
            Self::NotConfirmed => "not confirmed: nothing was done".to_owned(),
            Self::Fewer { came, wanted } => {
                format!("{came} of {wanted} messages came, and then nothing within --timeout-ms")
            }
            Self::Write { path, source } => write(path, source),
            Self::Read { path, source } => format!("cannot read {}: {}", path.display(), chain(source)),
            Self::Record { path, number, what } => {
                let what = super::show::escaped(what);
                format!("message {number} of {} is none: {what}", path.display())
            }
            Self::Skip { path, count, skip } => format!(
                "{} ends after {}, so --skip {skip} leaves out more than there are; nothing was sent: look whether it is \
                 the same file",
                path.display(),
                counted(*count, "message")
            ),
            Self::Import { failure, skip } => format!(
                "{failure}; the first {skip} messages of the file are there, and `--skip {skip}` goes on behind them"
            ),
            Self::Unread {
                count,
                queue,
                sequence,
            } => format!(
                "{} could not be read and not exported; the first has sequence {sequence} in queue {}: `steadfast peek`, or \
                 `steadfast inspect --check` of the stopped broker, says why",
                counted(*count, "message"),
                super::show::escaped(queue)
            ),
            Self::BackupBrokenOff { path, source } => format!(
                "{} was not made: {}; the broker's log says why, at `backup given up`. A message that cannot be read ends \
                 every backup: `steadfast queues` shows what is set aside, and docs/backup.md says what to do",
                path.display(),
                chain(source)
            ),
            Self::Backup { error, path } => format!("backup {}: {}", path.display(), chain(error)),
            Self::Usage(line) => (*line).to_owned(),
            Self::Telemetry(error) => format!("logging cannot be set up: {}", chain(error)),
        };
        f.write_str(&line)
    }
}

fn write(path: &Path, source: &io::Error) -> String {
    let line = format!("cannot write {}: {}", path.display(), chain(source));
    let is_partial = path.extension().is_some_and(|extension| extension == "partial");
    match source.kind() {
        ErrorKind::AlreadyExists if is_partial => {
            format!("{line}; a backup under way writes it, or one that was killed left it: then remove it")
        }
        ErrorKind::AlreadyExists => format!("{line}; nothing is overwritten: choose another name"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => folder(line, source),
        _ => line,
    }
}

fn api(error: &ApiError) -> String {
    let line = chain(error);
    match error {
        ApiError::Connect { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            format!("{line}; only the user that the broker runs as may ask it")
        }
        _ => line,
    }
}

fn client(error: &ClientError) -> String {
    // What a broker says is a stranger's text.
    let line = super::show::escaped(&chain(error));
    let ClientError::Connect { source, .. } = error else {
        return line;
    };
    let remedy = match source.kind() {
        ErrorKind::ConnectionRefused => {
            "nothing listens there: start a broker (`steadfast serve`), or name another with --addr"
        }
        ErrorKind::TimedOut => "no answer came: check --addr, and what lies between",
        _ => return line,
    };
    format!("{line}; {remedy}")
}

fn store(error: &StoreError, data_dir: &Path) -> String {
    let line = chain(error);
    match error {
        StoreError::InUse(_) => {
            format!(
                "{line}: the folder is in use; look at that broker (`steadfast status`), stop it, or choose another \
                 folder with --data-dir"
            )
        }
        StoreError::Damaged { .. } => format!("{line}; {}", remedy(data_dir)),
        StoreError::File { source, .. } if source.kind() == ErrorKind::IsADirectory => {
            format!("{line}: a folder is where a file should be; {}", remedy(data_dir))
        }
        StoreError::File { source, .. }
        | StoreError::Append { source, .. }
        | StoreError::Flush { source } => folder(line, source),
        StoreError::RestoreUnfinished(_) => {
            format!("{line}; remove the folder and restore again: there is no store in it")
        }
        StoreError::NotEmpty(_) => {
            format!("{line}; a restore needs a folder of its own: choose another with --data-dir")
        }
        StoreError::NewerFormat { .. } => {
            format!("{line}; use the version that wrote {}", data_dir.display())
        }
        _ => line,
    }
}

/// A line about a file or folder, with what to do about it.
fn folder(line: String, source: &io::Error) -> String {
    let remedy = match source.kind() {
        ErrorKind::PermissionDenied => {
            "this user needs to read and write it, or choose another folder with --data-dir"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "it is not a folder: choose one with --data-dir"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there: for bytes (`df`) or for files (`df -i`)"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: choose another folder with --data-dir"
        }
        _ if matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE)) => MORE_FILES,
        _ => return line,
    };
    format!("{line}; {remedy}")
}

const MORE_FILES: &str = "raise the limit on open files (`ulimit -n`, or LimitNOFILE of the service)";

fn remedy(data_dir: &Path) -> String {
    format!(
        "keep {0}, and restore a backup, or save what is whole: `steadfast repair --data-dir {0} --to NEW_FOLDER`",
        data_dir.display()
    )
}

/// An error with its sources, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a String cannot fail.
        let _ = write!(line, ": {error}");
        source = error.source();
    }
    line.replace('\n', " ")
}
