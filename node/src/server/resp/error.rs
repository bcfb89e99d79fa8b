//! Why a command failed, worded as Redis words it so that clients sort it as they sort Redis's.

use super::reply::Reply;
use super::unsupported;
use crate::coordinator::RequestError;
use bytes::Bytes;
use dynamo::object::Refusal;

/// A failed command. The text is the whole error reply, its prefix included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// Redis has no such command.
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Its first arguments, each in quotes.
        arguments: String,
    },
    /// No such subcommand.
    #[error("ERR unknown subcommand '{subcommand}'. Try {command} HELP.")]
    UnknownSubcommand {
        /// What was asked for.
        subcommand: String,
        /// Of which command, in capitals.
        command: &'static str,
    },
    /// Redis has it and Annulus refuses it.
    #[error("ERR ANNULUS unsupported: '{what}' {reason}")]
    Unsupported {
        /// The command, or the command and its option.
        what: String,
        /// Why.
        reason: &'static str,
    },
    /// The command is for another kind of value than the key holds.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// A change that cannot be made to what the key holds.
    #[error("{}", refusal_text(.0))]
    Refused(Refusal),
    /// The connection has to say first who it is.
    #[error("NOAUTH Authentication required.")]
    NotAuthenticated,
    /// The user may not carry out this command.
    #[error("NOPERM User {user} has no permissions to run the '{command}' command")]
    NotPermitted {
        /// Who.
        user: String,
        /// Which.
        command: &'static str,
    },
    /// A kind of connection that does not exist.
    #[error("ERR Unknown client type '{0}'")]
    ClientType(String),
    /// A user that a question is about, and does not exist.
    #[error("ERR User '{0}' not found")]
    UserNotFound(String),
    /// A command that a question is about, and does not exist.
    #[error("ERR Command '{0}' not found")]
    CommandNotFound(String),
    /// A category of commands that does not exist.
    #[error("ERR Unknown category '{0}'")]
    UnknownCategory(String),
    /// A member that does not exist.
    #[error("ERR Unknown node {0}")]
    UnknownNode(String),
    /// A user that does not exist.
    #[error("ERR No such user '{0}'")]
    NoSuchUser(String),
    /// An option of EXPIRE that does not exist.
    #[error("ERR Unsupported option {0}")]
    ExpireOption(String),
    /// Others wrote the key each time between reading and writing. Nothing was written.
    #[error("TRYAGAIN others write the key at the same time; nothing was written")]
    Contended,
    /// Options that do not exist or do not go together.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument that must be a number and is none.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// A time to live that cannot be.
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    /// A cursor that no SCAN returned.
    #[error("ERR invalid cursor")]
    Cursor,
    /// The reply would take more room than a connection has.
    #[error("ERR reply too large (over {bytes_max} bytes, the most a connection may have untaken)")]
    ReplyTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Anything else, always the same text.
    #[error("{0}")]
    Fixed(&'static str),
    /// A setting that is a number.
    #[error(
        "ERR CONFIG SET failed (possibly related to argument '{0}') - argument couldn't be parsed into an integer"
    )]
    ConfigNotInteger(&'static str),
    /// A setting that is set twice at once.
    #[error("ERR CONFIG SET failed (possibly related to argument '{0}') - duplicate parameter")]
    ConfigTwice(&'static str),
    /// An option of HELLO that does not exist.
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(String),
    /// The store did not carry it out.
    #[error("{}", request_text(.0))]
    Request(#[from] RequestError),
}

impl CommandError {
    /// A command that neither Redis nor Annulus serves, or that only Redis serves.
    pub(super) fn not_served(arguments: &[Bytes]) -> Self {
        let name = shown(arguments.first());
        if let Some(reason) = arguments.first().and_then(|name| unsupported::reason(name)) {
            return Self::Unsupported { what: name.to_ascii_lowercase(), reason };
        }
        // As Redis, quote what comes first and no more than 128 characters of it.
        let mut quoted = String::new();
        for argument in &arguments[1..] {
            if quoted.len() >= 128 {
                break;
            }
            let left = 128 - quoted.len();
            quoted.push('\'');
            quoted.extend(String::from_utf8_lossy(&argument[..argument.len().min(left)]).chars());
            quoted.push_str("' ");
        }
        Self::Unknown { name, arguments: quoted }
    }

    /// Wrong number of arguments of `COMMAND SUBCOMMAND`.
    pub(super) fn subcommand_arity(command: &str, subcommand: &[u8]) -> Self {
        Self::Arity(format!("{command}|{}", String::from_utf8_lossy(subcommand).to_ascii_lowercase()))
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        Self::Error(error.to_string())
    }
}

/// An argument as an error may quote it.
pub(super) fn shown(argument: Option<&Bytes>) -> String {
    let argument = argument.map_or(&[][..], |argument| &argument[..argument.len().min(128)]);
    String::from_utf8_lossy(argument).into_owned()
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::WrongKind => CommandError::WrongType.to_string(),
        Refusal::NotInteger => CommandError::NotInteger.to_string(),
        Refusal::FieldNotInteger => String::from("ERR hash value is not an integer"),
        Refusal::Overflow => String::from("ERR increment or decrement would overflow"),
        Refusal::TooLarge { bytes, bytes_max } => {
            format!("ERR value too large ({bytes} bytes, limit {bytes_max})")
        }
    }
}

/// The prefix tells stock clients what to do: OVERLOADED is an error like any other, lest overload be met with more load;
/// LOADING, CLUSTERDOWN and TRYAGAIN are tried again after a pause by those
/// that try anything again; the others are handed to the caller.
fn request_text(error: &RequestError) -> String {
    match error {
        RequestError::NoRing => format!("LOADING {error}"),
        RequestError::Unavailable { .. } | RequestError::TimedOut(_) => format!("CLUSTERDOWN {error}"),
        RequestError::Overloaded(_) => format!("OVERLOADED {error}"),
        RequestError::DiskFull { .. } => format!("DISKFULL {error}"),
        RequestError::Storage(_) => format!("IOERR {error}"),
        RequestError::ValueTooLong { bytes, bytes_max } => {
            format!("ERR value too large ({bytes} bytes, limit {bytes_max})")
        }
        RequestError::KeyTooLong { bytes, bytes_max } => {
            format!("ERR key too large ({bytes} bytes, limit {bytes_max})")
        }
        RequestError::TooManySiblings { .. } | RequestError::Invalid(_) => format!("ERR {error}"),
    }
}
