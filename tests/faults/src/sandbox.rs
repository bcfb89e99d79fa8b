//! A place where networks and disks can be broken without anyone else noticing: a network namespace for each node, on a
//! bridge that has no way out, and a file system of its own for each, in a file.
//!
//! All of it is made inside namespaces of this program's own (see [`enter`]), so that it is gone when the program is,
//! however it ended.

use anyhow::{Context, bail, ensure};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const INSIDE: &str = "ANNULUS_FAULTS_INSIDE";
/// As small as XFS may be, and never filled, but for the scenario that does.
const DISK_BYTES: &str = "400M";

/// Starts this program anew in namespaces of its own for network, mounts and processes, unless it is there already.
///
/// # Errors
/// When that is not allowed: it takes root.
pub fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        std::fs::create_dir_all("/run/netns")?;
        run("mount", &["-t", "tmpfs", "tmpfs", "/run/netns"])?;
        run("ip", &["link", "set", "lo", "up"])?;
        run("ip", &["link", "add", "ring", "type", "bridge"])?;
        run("ip", &["addr", "add", "10.199.0.1/24", "dev", "ring"])?;
        return run("ip", &["link", "set", "ring", "up"]);
    }
    let user = std::fs::metadata("/proc/self")?.uid();
    ensure!(user == 0, "namespaces, mounts and packet filters take root");
    let program = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("unshare")
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, or failed; with what it said.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{program} is missing; tests/faults/tools.sh installs it"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The library that makes a program's clock another.
///
/// # Errors
/// When it is not installed.
pub fn clock_library() -> anyhow::Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok);
    let mut found =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().context("libfaketime is missing; tests/faults/tools.sh installs it")
}

/// The network of one node: a namespace with one address.
#[derive(Debug)]
pub struct Net {
    name: String,
    /// Its address.
    pub address: String,
}

impl Net {
    /// Makes the network of a node.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn new(ordinal: usize) -> anyhow::Result<Self> {
        let (name, outer, inner) = (format!("node-{ordinal}"), format!("o{ordinal}"), format!("i{ordinal}"));
        let address = format!("10.199.0.{}", 10 + ordinal);
        run("ip", &["netns", "add", &name])?;
        run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &name])?;
        run("ip", &["link", "set", &outer, "master", "ring", "up"])?;
        let net = Self { name, address };
        net.run("ip", &["addr", "add", &format!("{}/24", net.address), "dev", &inner])?;
        net.run("ip", &["link", "set", &inner, "up"])?;
        net.run("ip", &["link", "set", "lo", "up"])?;
        Ok(net)
    }

    /// A command in this network. Mounts stay those of this program, so that a disk can be taken away.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let network = format!("--net=/run/netns/{}", self.name);
        let arguments: Vec<&str> = [network.as_str(), program].iter().chain(arguments).copied().collect();
        run("nsenter", &arguments)
    }

    /// Nothing that this address sends arrives here any more.
    ///
    /// # Errors
    /// Those of `iptables`.
    pub fn refuse(&self, address: &str) -> anyhow::Result<()> {
        self.run("iptables", &["-w", "-A", "INPUT", "-s", address, "-j", "DROP"])
    }

    /// Everything arrives again.
    ///
    /// # Errors
    /// Those of `iptables`.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.run("iptables", &["-w", "-F", "INPUT"])
    }
}

/// The disk of one node: XFS in a file.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Disk {
    /// Makes an empty disk.
    ///
    /// # Errors
    /// Those of `mkfs.xfs` and `mount`.
    pub fn new(place: &Path, ordinal: usize) -> anyhow::Result<Self> {
        let disk =
            Self { image: place.join(format!("disk-{ordinal}")), mount: place.join(format!("node-{ordinal}")) };
        std::fs::create_dir_all(&disk.mount)?;
        disk.make()?;
        Ok(disk)
    }

    fn make(&self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(&self.image);
        run("truncate", &["-s", DISK_BYTES, &self.image.to_string_lossy()])?;
        run("mkfs.xfs", &["-q", "-f", &self.image.to_string_lossy()])?;
        self.mount()
    }

    fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.mount.to_string_lossy()])
    }

    fn unmount(&self) -> anyhow::Result<()> {
        run("umount", &[&self.mount.to_string_lossy()])
    }

    /// The power fails: what was not synced is not there, not even what the file system has only in its log's buffers.
    /// Whoever uses the disk gets errors from now on, or believes that a sync which was under way went well: who shall not,
    /// has to [stand still](crate::process::until_it_stands_still) before.
    ///
    /// # Errors
    /// Those of `xfs_io`.
    pub fn lose_power(&self) -> anyhow::Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", &self.mount.to_string_lossy()])
    }

    /// The power is back: the file system recovers from its log. Nobody may use the disk meanwhile.
    ///
    /// # Errors
    /// Those of `umount` and `mount`.
    pub fn restore_power(&self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// A new, empty disk in its place. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// Those of `umount`, `mkfs.xfs` and `mount`.
    pub fn replace(&self) -> anyhow::Result<()> {
        self.unmount()?;
        self.make()
    }

    /// Keeps a copy of everything on it. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// Those of `cp`.
    pub fn snapshot(&self) -> anyhow::Result<()> {
        self.unmount()?;
        run("cp", &["--sparse=always", &self.image.to_string_lossy(), &self.kept().to_string_lossy()])?;
        self.mount()
    }

    /// Puts the copy back. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// When there is no copy.
    pub fn roll_back(&self) -> anyhow::Result<()> {
        self.unmount()?;
        std::fs::rename(self.kept(), &self.image)?;
        self.mount()
    }

    fn kept(&self) -> PathBuf {
        self.image.with_extension("kept")
    }

    /// Fills it but for so many MiB.
    ///
    /// # Errors
    /// When it cannot be asked how full it is.
    pub fn fill_but(&self, mib: u64) -> anyhow::Result<()> {
        let stat = nix::sys::statvfs::statvfs(&self.mount)?;
        let free = stat.blocks_available() * stat.fragment_size();
        let bytes = free.saturating_sub(mib << 20).to_string();
        run("fallocate", &["-l", &bytes, &self.ballast().to_string_lossy()])
    }

    /// Takes away what [`fill_but`](Self::fill_but) has put there.
    ///
    /// # Errors
    /// When it is not there.
    pub fn make_room(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
        let _ = std::fs::remove_file(&self.image);
        let _ = std::fs::remove_file(self.kept());
    }
}
