//! Whether a process does anything any more.

use anyhow::bail;
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const STILL_MAX: Duration = Duration::from_secs(5);
/// How often in a row it has to be seen still: under `strace` a thread is for moments at each system call.
const LOOKS: u32 = 3;

/// Waits until nothing of a process that was sent SIGSTOP runs in its own program any more.
///
/// # Errors
/// When it goes on, or is no more.
pub fn until_it_stands_still(process: Pid) -> anyhow::Result<()> {
    let (began, mut looks) = (Instant::now(), 0);
    while looks < LOOKS {
        if began.elapsed() > STILL_MAX {
            bail!("process {process} goes on, though it was stopped");
        }
        std::thread::sleep(Duration::from_millis(1));
        looks = if stands_still(process)? { looks + 1 } else { 0 };
    }
    Ok(())
}

/// Stopped threads do nothing, nor do dead ones; those in a system call that cannot be interrupted stop as soon as they come
/// back from it.
fn stands_still(process: Pid) -> std::io::Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        // Behind the name, which may have anything in it.
        let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'D' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use std::process::Command;

    #[test]
    fn a_process_stands_still_from_when_it_is_stopped() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let began = Instant::now();
        // It may have to wait for the disk to begin.
        while stands_still(process).unwrap() {
            assert!(began.elapsed() < STILL_MAX);
        }
        kill(process, Signal::SIGSTOP).unwrap();
        until_it_stands_still(process).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(until_it_stands_still(process).is_err(), "it is gone");
    }
}
