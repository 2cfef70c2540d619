//! One run of the binary in a folder of its own.

use std::path::Path;

use assert_cmd::Command;
use snapbox::assert::DEFAULT_ACTION_ENV;
use snapbox::{Assert, IntoData, Redactions};

/// A folder to run in, and variables to run with.
pub(crate) struct World {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            variables: Vec::new(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn with_file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder().join(name), text).expect("a file in our folder");
        self
    }

    pub(crate) fn with_variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The binary in this world; nothing of the environment of the tests reaches it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("steadfast"));
        command.current_dir(self.folder()).env_clear().args(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end and compares what it says: on standard output where it ends well, else on standard error,
    /// and nothing on the other. `[FOLDER]` stands for the folder.
    pub(crate) fn check(&self, args: &[&str], code: i32, expect: impl IntoData) {
        let output = self.command(args).output().expect("the binary runs");
        let (said, silent) = match code {
            0 => (output.stdout, output.stderr),
            _ => (output.stderr, output.stdout),
        };
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let mut redactions = Redactions::new();
        redactions
            .insert("[FOLDER]", self.folder().to_path_buf())
            .expect("a placeholder in brackets");
        Assert::new()
            .action_env(DEFAULT_ACTION_ENV)
            .redact_with(redactions)
            .eq(text(said), expect);
        assert_eq!((output.status.code(), text(silent)), (Some(code), String::new()));
    }
}
