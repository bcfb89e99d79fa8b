//! What this machine could do at most: bytes a second written durably to the disk, and sent over loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

const BLOCK_BYTES: usize = 1 << 20;
const BLOCKS: usize = 512;

/// Bytes a second that a file takes with a sync every so many mebibytes.
pub(super) fn disk(directory: &Path, mebibytes_a_sync: usize) -> anyhow::Result<f64> {
    let block = noise();
    durably(directory, mebibytes_a_sync, |write| {
        let began = Instant::now();
        (0..BLOCKS).try_for_each(|_| write(&block))?;
        Ok((BLOCKS * BLOCK_BYTES) as f64 / began.elapsed().as_secs_f64())
    })
}

/// Bytes a second that one TCP connection over loopback carries.
pub(super) fn loopback() -> anyhow::Result<f64> {
    received(BLOCKS * 4, |_| Ok(()))
}

/// Bytes a second that come over one TCP connection over loopback and go to a file, with a sync every so many mebibytes: both at
/// once, on the same processors.
pub(super) fn loopback_to_disk(directory: &Path, mebibytes_a_sync: usize) -> anyhow::Result<f64> {
    durably(directory, mebibytes_a_sync, |write| received(BLOCKS * 2, write))
}

/// Has `work` write to a file that is synced every so many mebibytes, and removes it.
fn durably(
    directory: &Path,
    mebibytes_a_sync: usize,
    work: impl FnOnce(&mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    let path = directory.join("limit");
    let (mut file, mut unsynced) = (File::create(&path)?, 0);
    let rate = work(&mut |bytes| {
        file.write_all(bytes)?;
        unsynced += bytes.len();
        if unsynced >= mebibytes_a_sync * BLOCK_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
        Ok(())
    });
    std::fs::remove_file(path)?;
    rate
}

/// Bytes a second that one TCP connection over loopback carries to `take`, of so many blocks.
fn received(blocks: usize, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> anyhow::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let block = noise();
        for _ in 0..blocks {
            stream.write_all(&block)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    let (mut buffer, mut bytes, began) = (vec![0; BLOCK_BYTES], 0, Instant::now());
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => {
                take(&buffer[..read])?;
                bytes += read;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(bytes as f64 / seconds)
}

/// Time of all processors since the machine started.
#[derive(Clone, Copy)]
pub(super) struct Processors {
    busy: u64,
    all: u64,
}

impl Processors {
    pub(super) fn now() -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let times: Vec<u64> =
            stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
        // User, nice, system, idle, waiting for a disk, interrupts, and what other machines took.
        let [idle, waiting] = [3, 4].map(|at| times.get(at).copied().unwrap_or_default());
        let all = times.iter().take(8).sum();
        Ok(Self { busy: all - idle - waiting, all })
    }

    /// Part of the processors that was busy since then.
    pub(super) fn busy_since(self, before: Self) -> f64 {
        (self.busy - before.busy) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// Bytes that do not compress.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(BLOCK_BYTES).collect()
}
