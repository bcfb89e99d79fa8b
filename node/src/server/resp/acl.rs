//! Who may do what: users from a file in the format of a Redis ACL file.
//!
//! ```text
//! user default off
//! user app on >secret ~app:* +@all -@dangerous
//! user reader on #9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 allkeys +@read
//! ```
//!
//! Rules apply from left to right to a user who may do nothing. Unlike in Redis, the user `default` may do nothing unless
//! the file says so: who mounts a file wants to keep others out. Rules for channels are accepted, since there are none;
//! what else is not known is an error, so that no rule is ignored.

use super::command;
use super::command_table::{COMMANDS, Spec};
use super::error::CommandError;
use super::glob;
use super::key_access::reads_and_writes;
use super::reply::Reply;
use super::subcommands;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AclError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is longer than such files get.
    #[error("{0} is longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// A line is not `user NAME rules`.
    #[error("line {0}: expected 'user NAME rules'")]
    Line(usize),
    /// A user appears twice.
    #[error("line {line}: user '{name}' appears twice")]
    Twice {
        /// Which line.
        line: usize,
        /// Whose.
        name: String,
    },
    /// A rule that is not known.
    #[error("line {line}: rule '{rule}' is not known here")]
    Rule {
        /// Which line.
        line: usize,
        /// The rule, passwords left out.
        rule: String,
    },
}

/// Reads a file of users, to see whether it can be used.
///
/// # Errors
/// [`AclError`].
pub fn check(path: &Path) -> Result<(), AclError> {
    read(path).map(|_| ())
}

/// A user and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// Its name.
    pub(super) name: String,
    enabled: bool,
    any_password: bool,
    passwords: Vec<[u8; 32]>,
    /// By place in the command table.
    commands: Vec<bool>,
    /// Subcommands, each with the place of its command, of which the opposite holds.
    exceptions: BTreeSet<(usize, String)>,
    keys: Vec<KeyPattern>,
}

/// Keys that a user may read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Bytes,
    read: bool,
    write: bool,
}

impl KeyPattern {
    fn any() -> Self {
        Self { pattern: Bytes::from_static(b"*"), read: true, write: true }
    }

    /// As a rule.
    fn rule(&self) -> String {
        let access = match (self.read, self.write) {
            (true, true) => "",
            (true, false) => "%R",
            _ => "%W",
        };
        format!("{access}~{}", String::from_utf8_lossy(&self.pattern))
    }
}

type Users = BTreeMap<String, Arc<User>>;

/// The users in force.
#[derive(Debug)]
pub(super) struct Acl {
    everyone: Arc<User>,
    /// `None`: there is no file, and everyone may do everything.
    file: Option<(PathBuf, Mutex<Loaded>)>,
}

#[derive(Debug, Default)]
struct Loaded {
    changed: Option<SystemTime>,
    users: Arc<Users>,
}

impl Acl {
    /// Users from a file. When it cannot be read, nobody is let in.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let file = path.map(|path| {
            let acl = (path.to_owned(), Mutex::default());
            reload(&acl.0, &acl.1);
            acl
        });
        Self { everyone: Arc::new(User::unbounded()), file }
    }

    /// Whether there is a file.
    pub(super) fn is_configured(&self) -> bool {
        self.file.is_some()
    }

    /// The user of a connection that has not said who it is; `None`: it may do nothing until it has.
    pub(super) fn anonymous(&self) -> Option<Arc<User>> {
        match &self.file {
            None => Some(self.everyone.clone()),
            Some(_) => self.users().get("default").filter(|user| user.enabled && user.any_password).cloned(),
        }
    }

    /// The user of this name and password. The file is read again if it has changed.
    pub(super) fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let users = self.users();
        let user = users.get(std::str::from_utf8(name).ok()?)?;
        let hash: [u8; 32] = Sha256::digest(password).into();
        // Of hashes the time of comparing tells nothing about the password.
        let right = user.any_password || user.passwords.contains(&hash);
        (user.enabled && right).then(|| user.clone())
    }

    /// Whether there is a user of this name.
    pub(super) fn has_user(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.users().contains_key(name))
    }

    /// All users by name.
    pub(super) fn users(&self) -> Arc<Users> {
        match &self.file {
            None => Arc::new(BTreeMap::from([(self.everyone.name.clone(), self.everyone.clone())])),
            Some((path, loaded)) => {
                reload(path, loaded);
                loaded.lock().users.clone()
            }
        }
    }
}

/// A file that has become unreadable leaves in force what was read before.
fn reload(path: &Path, loaded: &Mutex<Loaded>) {
    let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let mut loaded = loaded.lock();
    if changed.is_some() && loaded.changed == changed {
        return;
    }
    match read(path) {
        Ok(users) => *loaded = Loaded { changed, users: Arc::new(users) },
        Err(error) => {
            tracing::error!(%error, "the users of the Redis interface cannot be read; those read before stay in force");
            loaded.changed = changed;
        }
    }
}

fn read(path: &Path) -> Result<Users, AclError> {
    let failed = |error| AclError::Read(path.to_owned(), error);
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(AclError::TooLong(path.to_owned()));
    }
    parse(&std::fs::read_to_string(path).map_err(failed)?)
}

/// Users from the text of a file.
pub(super) fn parse(text: &str) -> Result<Users, AclError> {
    let mut users = Users::new();
    for (line, words) in (1..).zip(text.lines()) {
        let mut words = words.split_whitespace();
        match words.next() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some("user") => {}
            Some(_) => return Err(AclError::Line(line)),
        }
        let name = words.next().ok_or(AclError::Line(line))?.to_owned();
        let mut user = User::nobody(name.clone());
        for rule in words {
            let known = user.apply(rule);
            known.ok_or_else(|| AclError::Rule {
                line,
                rule: if rule.starts_with(['>', '<']) { rule[..1].to_owned() } else { rule.to_owned() },
            })?;
        }
        if users.insert(name.clone(), Arc::new(user)).is_some() {
            return Err(AclError::Twice { line, name });
        }
    }
    Ok(users)
}

impl User {
    fn nobody(name: String) -> Self {
        let commands = vec![false; COMMANDS.len()];
        Self {
            name,
            enabled: false,
            any_password: false,
            passwords: Vec::new(),
            commands,
            exceptions: BTreeSet::new(),
            keys: Vec::new(),
        }
    }

    fn unbounded() -> Self {
        Self {
            enabled: true,
            any_password: true,
            commands: vec![true; COMMANDS.len()],
            keys: vec![KeyPattern::any()],
            ..Self::nobody(String::from("default"))
        }
    }

    /// `None`: no such rule.
    fn apply(&mut self, rule: &str) -> Option<()> {
        match rule {
            "on" => self.enabled = true,
            "off" => self.enabled = false,
            "nopass" => (self.any_password, self.passwords) = (true, Vec::new()),
            "resetpass" => (self.any_password, self.passwords) = (false, Vec::new()),
            "allkeys" => self.keys = vec![KeyPattern::any()],
            "resetkeys" => self.keys.clear(),
            "allcommands" => self.allow_all(true),
            "nocommands" => self.allow_all(false),
            "allchannels" | "resetchannels" | "sanitize-payload" | "skip-sanitize-payload" | "clearselectors" => {}
            "reset" => *self = Self::nobody(self.name.clone()),
            _ => return self.apply_with_argument(rule),
        }
        Some(())
    }

    fn apply_with_argument(&mut self, rule: &str) -> Option<()> {
        let (kind, argument) = rule.split_at_checked(1)?;
        match kind {
            ">" => {
                self.any_password = false;
                self.passwords.push(Sha256::digest(argument).into());
            }
            "#" => {
                self.any_password = false;
                self.passwords.push(from_hex(argument)?);
            }
            "~" | "%" => {
                let (access, pattern) = rule.split_once('~')?;
                let (read, write) = match access.to_ascii_uppercase().as_str() {
                    "" | "%RW" | "%WR" => (true, true),
                    "%R" => (true, false),
                    "%W" => (false, true),
                    _ => return None,
                };
                self.keys.push(KeyPattern { pattern: Bytes::copy_from_slice(pattern.as_bytes()), read, write });
            }
            "&" => {}
            "+" | "-" => self.allow(argument, kind == "+")?,
            _ => return None,
        }
        Some(())
    }

    fn allow_all(&mut self, allowed: bool) {
        self.commands.fill(allowed);
        self.exceptions.clear();
    }

    fn allow(&mut self, what: &str, allowed: bool) -> Option<()> {
        let what = what.to_ascii_lowercase();
        if let Some(category) = what.strip_prefix('@') {
            if !command::CATEGORIES.contains(&category) {
                return None;
            }
            for (at, spec) in COMMANDS.iter().enumerate() {
                if category == "all" || command::categories(spec).contains(&category) {
                    self.allow_command(at, allowed);
                }
            }
            return Some(());
        }
        if let Some((command, subcommand)) = what.split_once('|') {
            let (at, spec) = Spec::find(command.as_bytes())?;
            if !subcommands::is_known(spec.name, subcommand) {
                return None;
            }
            let exception = (at, subcommand.to_owned());
            match self.commands[at] == allowed {
                true => self.exceptions.remove(&exception),
                false => self.exceptions.insert(exception),
            };
            return Some(());
        }
        match Spec::find(what.as_bytes()) {
            Some((at, _)) => self.allow_command(at, allowed),
            // What Redis has and Annulus has not is refused anyway.
            None => super::unsupported::reason(what.as_bytes()).map(|_| ())?,
        }
        Some(())
    }

    fn allow_command(&mut self, at: usize, allowed: bool) {
        self.commands[at] = allowed;
        self.exceptions.retain(|(of, _)| *of != at);
    }

    /// Whether the user may carry out a command on these keys.
    pub(super) fn permits(&self, index: usize, spec: &Spec, arguments: &[Bytes]) -> Result<(), CommandError> {
        let excepted = || {
            let subcommand = arguments.get(1).map(|word| String::from_utf8_lossy(word).to_ascii_lowercase());
            subcommand.is_some_and(|subcommand| self.exceptions.contains(&(index, subcommand)))
        };
        let allowed = self.commands.get(index).copied().unwrap_or(false);
        if allowed == (!self.exceptions.is_empty() && excepted()) {
            return Err(CommandError::NotPermitted { user: self.name.clone(), command: spec.name });
        }
        if self.keys.contains(&KeyPattern::any()) {
            return Ok(());
        }
        let (reads, writes) = reads_and_writes(spec, arguments);
        let permitted = |key: &Bytes| {
            let matches = |of: &&KeyPattern| glob::matches(&of.pattern, key);
            let may_read = !reads || self.keys.iter().filter(matches).any(|of| of.read);
            let may_write = !writes || self.keys.iter().filter(matches).any(|of| of.write);
            may_read && may_write && self.keys.iter().any(|of| matches(&of))
        };
        if spec.keys_of(arguments).all(permitted) {
            Ok(())
        } else {
            Err(CommandError::Fixed("NOPERM No permissions to access a key"))
        }
    }

    /// The user as ACL GETUSER tells it.
    pub(super) fn described(&self) -> Reply {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        flags.extend(self.any_password.then_some("nopass"));
        let passwords = self.passwords.iter().map(|password| Reply::Text(digits(password)));
        let keys: Vec<String> = self.keys.iter().map(KeyPattern::rule).collect();
        Reply::Map(vec![
            (Reply::Word("flags"), Reply::Set(flags.into_iter().map(Reply::Word).collect())),
            (Reply::Word("passwords"), Reply::Array(passwords.collect())),
            (Reply::Word("commands"), Reply::Text(self.command_rules())),
            (Reply::Word("keys"), Reply::Text(keys.join(" "))),
            (Reply::Word("channels"), Reply::Word("")),
            (Reply::Word("selectors"), Reply::Array(Vec::new())),
        ])
    }

    /// What the user may do, as rules.
    fn command_rules(&self) -> String {
        let allowed = self.commands.iter().filter(|allowed| **allowed).count();
        // By what it takes fewer words to say.
        let all = allowed > COMMANDS.len() / 2;
        let mut words = vec![String::from(if all { "+@all" } else { "-@all" })];
        let others = COMMANDS.iter().zip(&self.commands).filter(|(_, allowed)| **allowed != all);
        let sign = |allowed: bool| if allowed { '+' } else { '-' };
        words.extend(others.map(|(spec, allowed)| format!("{}{}", sign(*allowed), spec.name)));
        let excepted = |(at, subcommand): &(usize, String)| {
            format!("{}{}|{subcommand}", sign(!self.commands[*at]), COMMANDS[*at].name)
        };
        words.extend(self.exceptions.iter().map(excepted));
        words.join(" ")
    }

    /// The user as a line of the file.
    pub(super) fn line(&self) -> String {
        let mut words = vec![format!("user {}", self.name), String::from(if self.enabled { "on" } else { "off" })];
        if self.any_password {
            words.push(String::from("nopass"));
        }
        words.extend(self.passwords.iter().map(|password| format!("#{}", digits(password))));
        words.extend(self.keys.iter().map(KeyPattern::rule));
        words.push(self.command_rules());
        words.join(" ")
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    // Reading a number would take a sign for a digit.
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(user: &User, line: &str) -> bool {
        let arguments: Vec<Bytes> = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        let (index, spec) = Spec::find(&arguments[0]).unwrap();
        user.permits(index, spec, &arguments).is_ok()
    }

    #[test]
    fn rules_apply_from_left_to_right() {
        let users = parse(
            "# who may come in\n\nuser default off\nuser app on >secret ~app:* +@all -flushall\n\
             user reader on nopass allkeys +@read +ping\n",
        )
        .unwrap();
        let (app, reader) = (&users["app"], &users["reader"]);
        assert!(permits(app, "set app:1 x") && permits(app, "mget app:1 app:2") && permits(app, "ping"));
        assert!(!permits(app, "get other") && !permits(app, "mset app:1 x other y") && !permits(app, "flushall"));
        assert!(permits(reader, "get a") && permits(reader, "hgetall a") && !permits(reader, "set a b"));
        let again = parse(&app.line()).unwrap();
        assert_eq!(again["app"], *app, "what is listed can be read");
    }

    #[test]
    fn subcommands_and_ways_of_access_are_told_apart() {
        let users = parse(
            "user most on nopass %R~in:* %W~out:* %RW~both:* +@all -config|set -client +client|id +client|setinfo\n\
             user few on nopass allkeys -@all +config|get +@string -get\n",
        )
        .unwrap();
        let (most, few) = (&users["most"], &users["few"]);
        assert!(permits(most, "config get x") && !permits(most, "config SET x y"));
        assert!(permits(most, "client ID") && !permits(most, "client list"));
        assert!(permits(most, "get in:a") && !permits(most, "set in:a x") && !permits(most, "incr in:a"));
        assert!(permits(most, "set out:a x") && !permits(most, "get out:a") && !permits(most, "set out:a x get"));
        assert!(
            permits(most, "incr both:a") && permits(most, "exists in:a out:a") && !permits(most, "exists other")
        );
        assert!(permits(few, "config get x") && !permits(few, "config resetstat") && !permits(few, "get a"));
        for user in [most, few] {
            assert_eq!(parse(&user.line()).unwrap()[&user.name], *user, "what is listed can be read");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error_and_no_password_is_told() {
        let signed = format!("user a #{}", "+f".repeat(32));
        for (text, expected) in [
            ("user a on +@nonsense", "line 1: rule '+@nonsense' is not known here"),
            ("user a on +nonsense", "line 1: rule '+nonsense' is not known here"),
            ("\nuser a on %X~a", "line 2: rule '%X~a' is not known here"),
            ("user a on -config|sett", "line 1: rule '-config|sett' is not known here"),
            ("user a on +get|x", "line 1: rule '+get|x' is not known here"),
            ("user a <secret", "line 1: rule '<' is not known here"),
            ("user a #12", "line 1: rule '#12' is not known here"),
            (&signed, &format!("line 1: rule '#{}' is not known here", "+f".repeat(32))),
            ("usr a on", "line 1: expected 'user NAME rules'"),
            ("user a on\nuser a off", "line 2: user 'a' appears twice"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }
}
