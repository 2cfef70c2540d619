//! Who is at the other end of a connection, as far as its transport has proved it.

/// What a transport proved of a peer, before the peer said a word of STOMP. It is no login yet: whether it may be one is
/// decided where logins are judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// Nothing.
    #[default]
    Unknown,
    /// A certificate that the listener's authority vouches for, whose key the peer has.
    Certificate {
        /// The name in it that the listener takes for a login name; `None` if it has no such name.
        login: Option<Box<str>>,
    },
    /// A process of this machine, as the kernel saw it when it connected.
    Local {
        /// Its effective user.
        uid: u32,
        /// Its number, where the system tells it.
        pid: Option<i32>,
    },
}

/// Whom a session acts for, once its login has been judged. Rules name it by these words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// The name of the user; `None` for one who said no name, where that is allowed.
    pub name: Option<Box<str>>,
    /// The groups that the user is in.
    pub groups: Box<[Box<str>]>,
}
