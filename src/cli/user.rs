//! `steadfast user`: who may log in. Works on the users file, whether a broker runs or not.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use serde::Serialize;

use super::show::escaped;
use super::table::{Look, table};
use super::{Failure, StoreArgs, load, print, print_json, written};
use crate::auth::{AuthError, Hash, Users, UsersFile, check_password, is_name};
use crate::base::Secret;
use crate::config::Overrides;
use crate::runtime::salt;
use crate::store::make_folder;

/// What is read of standard input at most: more than a password may have.
const INPUT_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user
    Add(AddArgs),
    /// Remove a user
    Remove(NameArgs),
    /// Set a user's password
    Passwd(PasswdArgs),
    /// List the users
    List(ListArgs),
    /// Let a user in no more, and keep the entry
    Disable(NameArgs),
    /// Let a disabled user in again
    Enable(NameArgs),
}

/// Where the users are.
#[derive(Debug, Args)]
struct FileArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Users file [default: security.users_file, or users.toml in the data folder]
    #[arg(long, value_name = "FILE")]
    users_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct NameArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Login name
    #[arg(value_parser = name)]
    name: String,
}

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    user: NameArgs,
    /// A group that the user is in, any number of times
    #[arg(long = "group", value_name = "GROUP", value_parser = name)]
    groups: Vec<String>,
    /// What the user's processes run as, by number: they need no password on a Unix socket
    #[arg(long)]
    uid: Option<u32>,
    /// Read the password from the first line of standard input, instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// Without a password: the user comes in by certificate, Unix socket or token only
    #[arg(long, conflicts_with = "password_stdin")]
    no_password: bool,
}

#[derive(Debug, Args)]
struct PasswdArgs {
    #[command(flatten)]
    user: NameArgs,
    /// Read the password from the first line of standard input, instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    file: FileArgs,
    /// One JSON object on each line
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Users are in a file with argon2id hashes of their passwords. A running broker reads it again at SIGHUP: whoever was \
removed, disabled or changed, and is connected, is disconnected then. With the first user nobody is anonymous any more. \
Passwords are asked for, or read from standard input; they are never arguments, which others can see.

Examples:
  steadfast user add alice --group orders
  pass show broker/bob | steadfast user add bob --password-stdin
  steadfast user add backup --uid 1001 --no-password
  steadfast user list --data-dir /var/lib/steadfast

Exit codes: 0 well, 1 a fault, 2 wrong usage, configuration or users file, or no such user.";

/// A user, as `list` has it.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    groups: &'a [Box<str>],
    disabled: bool,
    uid: Option<u32>,
    has_password: bool,
}

fn name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("1 to 128 bytes, no control characters and no spaces around it".to_owned()),
    }
}

pub(super) fn run(args: UserArgs) -> Result<(), Failure> {
    match args.command {
        UserCommand::Add(args) => {
            let (path, name) = args.user.place()?;
            // Others may change the file while somebody types.
            UsersFile::open(&path)?.check_absent(&name)?;
            let hash = match args.no_password {
                true => None,
                false => Some(hash(args.password_stdin)?),
            };
            let mut users = UsersFile::open(&path)?;
            users.add(&name, hash.as_ref(), &args.groups, args.uid)?;
            users.save()?;
            told(&path, &name, "added to")
        }
        UserCommand::Remove(args) => args.change("removed from", |users, name| users.remove(name)),
        UserCommand::Passwd(args) => {
            let (path, name) = args.user.place()?;
            UsersFile::open(&path)?.check_present(&name)?;
            let hash = hash(args.password_stdin)?;
            let mut users = UsersFile::open(&path)?;
            users.set_password(&name, &hash)?;
            users.save()?;
            told(&path, &name, "has a new password in")
        }
        UserCommand::List(args) => list(args),
        UserCommand::Disable(args) => {
            args.change("disabled in", |users, name| users.set_disabled(name, true))
        }
        UserCommand::Enable(args) => args.change("enabled in", |users, name| users.set_disabled(name, false)),
    }
}

impl FileArgs {
    /// The file. The data folder is made if the file is to be in it.
    fn path(self) -> Result<PathBuf, Failure> {
        if let Some(path) = self.users_file {
            return Ok(path);
        }
        let config = load(Overrides {
            file: self.store.config,
            data_dir: self.store.data_dir,
            ..Overrides::default()
        })?;
        let data_dir = &config.server.data_dir;
        if config.security.users_file.is_none() && !data_dir.exists() {
            make_folder(data_dir).map_err(|error| Failure::store(error, data_dir))?;
        }
        Ok(config.users_file())
    }
}

impl NameArgs {
    fn place(self) -> Result<(PathBuf, String), Failure> {
        Ok((self.file.path()?, self.name))
    }

    fn change(
        self,
        done: &str,
        change: impl FnOnce(&mut UsersFile, &str) -> Result<(), AuthError>,
    ) -> Result<(), Failure> {
        let (path, name) = self.place()?;
        let mut users = UsersFile::open(&path)?;
        change(&mut users, &name)?;
        users.save()?;
        told(&path, &name, done)
    }
}

fn told(path: &std::path::Path, name: &str, done: &str) -> Result<(), Failure> {
    print(format!(
        "user {name} {done} {}; SIGHUP makes a running broker read it\n",
        path.display()
    ))
}

fn list(args: ListArgs) -> Result<(), Failure> {
    let path = args.file.path()?;
    let users = Users::read(&path)?.ok_or(AuthError::NoUsersFile(path))?;
    let listed: Vec<_> = users
        .iter()
        .map(|user| Listed {
            name: &user.name,
            groups: &user.groups,
            disabled: user.disabled,
            uid: user.uid,
            has_password: user.password.is_some(),
        })
        .collect();
    if args.json {
        return print_json(&listed);
    }
    let mut out = io::stdout().lock();
    let shown = match listed.is_empty() {
        true => writeln!(out, "there are no users"),
        false => table(&mut out, Look::of_stdout(), &rows(&listed)),
    };
    written(shown.and_then(|()| out.flush()))
}

fn rows(users: &[Listed<'_>]) -> Vec<[String; 5]> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let mut rows = vec![["USER", "GROUPS", "PASSWORD", "UID", "DISABLED"].map(str::to_owned)];
    rows.extend(users.iter().map(|user| {
        [
            escaped(user.name),
            escaped(&user.groups.join(", ")),
            yes(user.has_password),
            user.uid.map(|uid| uid.to_string()).unwrap_or_default(),
            yes(user.disabled),
        ]
    }));
    rows
}

/// The hash of a new password.
fn hash(from_stdin: bool) -> Result<Hash, Failure> {
    let password = match from_stdin {
        true => read_line()?,
        false => ask()?,
    };
    check_password(&password).map_err(Failure::Password)?;
    Ok(Hash::of(&password, &salt()))
}

fn read_line() -> Result<Secret, Failure> {
    let mut line = Vec::new();
    let mut input = io::stdin().lock().take(INPUT_BYTES_MAX);
    input.read_until(b'\n', &mut line).map_err(Failure::Input)?;
    let line = Secret::new(line);
    let text = line.reveal();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    Ok(Secret::new(text.strip_suffix(b"\r").unwrap_or(text)))
}

/// Asks twice at the terminal, which shows nothing of what is typed.
fn ask() -> Result<Secret, Failure> {
    let mut terminal = Terminal::open()?;
    let password = terminal.ask("Password: ")?;
    check_password(&password).map_err(Failure::Password)?;
    match terminal.ask("Again: ")? == password {
        true => Ok(password),
        false => Err(Failure::Usage("the two passwords differ; nothing was changed")),
    }
}

/// The terminal, in a mode in which it shows nothing and hands over each key; as it was when this is dropped.
struct Terminal {
    before: Termios,
}

impl Terminal {
    fn open() -> Result<Self, Failure> {
        let before = tcgetattr(io::stdin()).map_err(|_| {
            Failure::Usage(
                "standard input is no terminal to ask for the password at; --password-stdin reads it from there",
            )
        })?;
        let mut silent = before.clone();
        // Ctrl-C is a key as any other here: a signal would leave the terminal mute.
        silent.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(input)?;
        Ok(Self { before })
    }

    /// Asks on standard error, so that standard output can go elsewhere.
    fn ask(&mut self, prompt: &str) -> Result<Secret, Failure> {
        const CANCELLED: Failure = Failure::Usage("no password was given; nothing was changed");
        let mut errors = io::stderr().lock();
        // Whoever sees no prompt may type all the same.
        let _ = write!(errors, "{prompt}");
        let mut typed = Secret::default();
        let answer = loop {
            let mut key = [0];
            match (rustix::io::read(io::stdin(), &mut key).map_err(input)?, key) {
                // Ctrl-C, Ctrl-D, Ctrl-\.
                (0, _) | (_, [0x03 | 0x04 | 0x1c]) => break Err(CANCELLED),
                (_, [b'\r' | b'\n']) => break Ok(typed),
                (_, [0x08 | 0x7f]) => typed.pop_character(),
                // Ctrl-U.
                (_, [0x15]) => typed = Secret::default(),
                (_, [byte]) => typed.push(byte),
            }
        };
        let _ = writeln!(errors);
        answer
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

fn input(error: rustix::io::Errno) -> Failure {
    Failure::Input(error.into())
}
