//! What is made from the command line's own definition: completions, manual pages, the reference in `docs/cli.md`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Failure, print};

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  steadfast completions bash > ~/.local/share/bash-completion/completions/steadfast
  steadfast completions zsh > \"${fpath[1]}/_steadfast\"
  steadfast completions fish > ~/.config/fish/completions/steadfast.fish";

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct ManArgs {
    /// Write a page for each command into this folder, which is made if it is missing
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const MAN_EXAMPLES: &str = "\
Examples:
  steadfast man | man -l -
  steadfast man --dir ~/.local/share/man/man1";

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "steadfast", &mut script);
    print(script)
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let commands = commands();
    let Some(dir) = &args.dir else {
        return match commands.first() {
            Some(command) => print(page(command).map_err(Failure::Output)?),
            None => Ok(()),
        };
    };
    let failed = |path: &Path, source| Failure::Write {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    for command in commands {
        let path = dir.join(format!("{}.1", name(&command).replace(' ', "-")));
        let page = page(&command).map_err(|error| failed(&path, error))?;
        fs::write(&path, page).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone().version(env!("CARGO_PKG_VERSION"))).render(&mut page)?;
    Ok(page)
}

/// `steadfast queue show`.
fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// Every command, each before those under it.
fn commands() -> Vec<Command> {
    fn gather(command: &Command, all: &mut Vec<Command>) {
        all.push(command.clone());
        for below in command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
        {
            gather(below, all);
        }
    }
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut all = Vec::new();
    gather(&root, &mut all);
    all
}

/// The reference of the command line: the text of `docs/cli.md`.
pub fn reference() -> String {
    let mut text =
        "# The command line\n\nMade from the program; `steadfast COMMAND --help` prints the same.\n"
            .to_owned();
    for mut command in commands() {
        let help = command.render_help().to_string();
        let name = name(&command).to_owned();
        let lines: Vec<String> = help
            .trim_end()
            .lines()
            .map(|line| format!("    {line}").trim_end().to_owned())
            .collect();
        text.push_str(&format!("\n## {name}\n\n{}\n", lines.join("\n")));
    }
    text
}
