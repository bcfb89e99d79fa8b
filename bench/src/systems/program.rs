//! Programs that the benchmarks start, and waiting until they are ready.

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a system may take to be ready.
pub(super) const READY_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to end after it was asked to.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Lines of the log of a process that does not get ready which are told.
const LINES_TOLD: usize = 20;

/// A process that ends with the value, and with the thread that started it, however that ends.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints goes to a log beside its data.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let program = command.get_program();
        // Becomes the program, which the kernel then ends when this one is killed and cannot.
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "TERM"]).arg(program).args(command.get_args());
        bound.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = bound.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tries again until it works; a process that has ended is not waited for.
    ///
    /// # Errors
    /// The last, when it has not worked for a minute or the process has ended, with what the process said last.
    pub fn until_ready<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let ready = until_ready(what, || match self.child.try_wait()? {
            // Whatever answers in its place is not what was started.
            Some(status) => Ok(Err(anyhow!("{what} has ended: {status}"))),
            None => attempt().map(Ok),
        });
        ready.flatten().map_err(|error| anyhow!("{error:#}\n{}", self.last_said()))
    }

    fn last_said(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES_TOLD)..];
        format!("The end of {}:\n{}", self.log.display(), last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries again until it works.
///
/// # Errors
/// The last, when it has not worked for a minute.
pub fn until_ready<T>(what: &str, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let until = Instant::now() + READY_MAX;
    loop {
        match attempt() {
            Ok(ready) => return Ok(ready),
            Err(error) if Instant::now() > until => return Err(error.context(format!("waiting for {what}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_process_that_ends_at_once_is_told_with_what_it_said() {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the port is taken; exit 3"]);
        let mut process = Process::start(&command, &place.path().join("log")).unwrap();
        let never = || -> anyhow::Result<()> { bail!("it does not answer") };
        let error = format!("{:#}", process.until_ready("the server", never).unwrap_err());
        assert!(error.contains("the port is taken") && error.contains("exit status: 3"), "{error}");
    }
}
