//! Where the API's socket is, and that nobody but its owner reaches it.
//!
//! It is `api.sock` in the data folder. Where that path is too long for a socket, it is in a folder of its own under the
//! runtime or temporary folder, and `api.path` in the data folder names it.
//!
//! # Invariants
//! - The socket has mode 0600 before it takes a connection.
//! - Called only by the owner of the data folder: what lies there under these names is left over and is replaced.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket};

use crate::api::{PATH_FILE, SOCKET_FILE};

use super::super::entropy;

/// What `sun_path` holds without its NUL.
const PATH_BYTES_MAX: usize = 107;

/// Connections waiting to be accepted.
const BACKLOG_COUNT: u32 = 64;

/// The names of folders made for a socket begin so.
const FOLDER_PREFIX: &str = "steadfast-";

/// A socket's place in the file system, which ends with this value.
#[derive(Debug)]
pub(crate) struct Place {
    socket: PathBuf,
    /// The folder made for it, and the file that names it.
    elsewhere: Option<(PathBuf, PathBuf)>,
}

impl Place {
    /// Listens in or for a data folder.
    pub(crate) fn listen(data_dir: &Path) -> io::Result<(Self, UnixListener)> {
        let data_dir = data_dir.canonicalize()?;
        let pointer = data_dir.join(PATH_FILE);
        remove_elsewhere(&pointer)?;
        let near = data_dir.join(SOCKET_FILE);
        remove_socket(&near)?;
        if fits(&near) {
            let listener = listen(&near)?;
            let place = Self {
                socket: near,
                elsewhere: None,
            };
            return Ok((place, listener));
        }
        let folder = make_folder()?;
        let place = Self {
            socket: folder.join(SOCKET_FILE),
            elsewhere: Some((folder, pointer.clone())),
        };
        let listener = listen(&place.socket)?;
        fs::write(&pointer, place.socket.as_os_str().as_encoded_bytes())?;
        Ok((place, listener))
    }

    /// The socket.
    pub(crate) fn path(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is gone already is as it should be; what cannot be removed is replaced by the next start.
        let _ = fs::remove_file(&self.socket);
        if let Some((folder, pointer)) = &self.elsewhere {
            let _ = fs::remove_file(pointer);
            let _ = fs::remove_dir(folder);
        }
    }
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_BYTES_MAX
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Before it listens, nobody can connect.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG_COUNT)
}

/// A folder that nobody else can enter, as near to what the system wants as its path allows.
fn make_folder() -> io::Result<PathBuf> {
    let name = format!("{FOLDER_PREFIX}{}", entropy::name());
    let bases = [
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        Some(std::env::temp_dir()),
        Some(PathBuf::from("/tmp")),
    ];
    let mut last = io::Error::new(ErrorKind::InvalidInput, "no folder's path is short enough");
    for base in bases.into_iter().flatten().filter(|base| base.is_absolute()) {
        let folder = base.join(&name);
        if !fits(&folder.join(SOCKET_FILE)) {
            continue;
        }
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Removes a socket that is left over; anything else of that name stays and is an error.
fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!("{} is in the way and is no socket", path.display()),
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what an earlier run has left elsewhere, and the file that names it.
fn remove_elsewhere(pointer: &Path) -> io::Result<()> {
    let named = match fs::read_to_string(pointer) {
        Ok(named) => PathBuf::from(named),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let folder = named.parent().filter(|folder| {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(FOLDER_PREFIX))
    });
    // Only what we made ourselves; it may be gone with the temporary folder.
    if let Some(folder) = folder
        && remove_socket(&folder.join(SOCKET_FILE)).is_ok()
    {
        let _ = fs::remove_dir(folder);
    }
    fs::remove_file(pointer)
}

#[cfg(test)]
mod tests;
