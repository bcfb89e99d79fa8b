//! The same commands to a Redis server and to Annulus, and every reply compared: scripts are in `redis/`.
//!
//! A line is an inline command. Before it may stand `~` (an array is compared without its order), `?` (only the kind of
//! the reply is compared) or `!` (both refuse, in whatever words). `@wait N` pauses N milliseconds.

use crate::memory::{Memory, serve};
use annulus_node::config::Limits;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// A Redis server for one test.
struct Redis {
    process: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    /// `None`: there is none on this machine.
    async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let redis = Self { process, directory };
        for _ in 0..500 {
            if UnixStream::connect(&socket).await.is_ok() {
                return Some(redis);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer")
    }

    async fn connect(&self) -> Connection<UnixStream> {
        Connection(BufReader::new(UnixStream::connect(self.directory.path().join("redis.sock")).await.unwrap()))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Connection<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn ask(&mut self, line: &str) -> Reply {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        let reply = tokio::time::timeout(Duration::from_secs(10), reply(&mut self.0)).await;
        reply.unwrap_or_else(|_| panic!("no reply to {line}"))
    }
}

/// A reply: its kind, its text, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reply {
    kind: char,
    text: String,
    items: Vec<Reply>,
}

async fn reply<R: AsyncBufRead + Unpin>(from: &mut R) -> Reply {
    let mut line = String::new();
    from.read_line(&mut line).await.unwrap();
    let line = line.trim_end_matches(['\r', '\n']);
    let kind = line.chars().next().unwrap();
    let text = line[1..].to_owned();
    let leaf = |text| Reply { kind, text, items: Vec::new() };
    let Ok(length) = text.parse::<i64>() else { return leaf(text) };
    match kind {
        '$' | '=' if length >= 0 => {
            let mut bytes = vec![0; usize::try_from(length).unwrap() + 2];
            from.read_exact(&mut bytes).await.unwrap();
            bytes.truncate(bytes.len() - 2);
            leaf(bytes.escape_ascii().to_string())
        }
        '*' | '~' | '%' if length >= 0 => {
            let mut items = Vec::new();
            for _ in 0..length * if kind == '%' { 2 } else { 1 } {
                items.push(Box::pin(reply(from)).await);
            }
            Reply { kind, text: String::new(), items }
        }
        _ => leaf(text),
    }
}

impl Reply {
    /// Sets have no order; maps are compared by their pairs.
    fn sorted(mut self, arrays: bool) -> Self {
        self.items = self.items.into_iter().map(|item| item.sorted(arrays)).collect();
        match self.kind {
            '~' => self.items.sort(),
            '%' => {
                let mut pairs: Vec<_> = self.items.chunks(2).map(<[Self]>::to_vec).collect();
                pairs.sort();
                self.items = pairs.concat();
            }
            '*' if arrays => self.items.sort(),
            _ => {}
        }
        self
    }
}

/// Runs the scripts against both; every difference is told.
async fn compare<S: AsyncRead + AsyncWrite + Unpin>(
    script: &str,
    redis: &mut Connection<UnixStream>,
    annulus: &mut Connection<S>,
) -> String {
    let mut differences = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(pause_ms) = line.strip_prefix("@wait ") {
            tokio::time::sleep(Duration::from_millis(pause_ms.parse().unwrap())).await;
            continue;
        }
        let mark = line.chars().next().filter(|mark| "~?!".contains(*mark));
        let command = line[mark.map_or(0, |_| 1)..].trim();
        let (expected, got) = (redis.ask(command).await, annulus.ask(command).await);
        let (expected, got) = (expected.sorted(mark == Some('~')), got.sorted(mark == Some('~')));
        let same = match mark {
            Some('?') => expected.kind == got.kind,
            Some('!') => expected.kind == '-' && got.kind == '-',
            _ => expected == got,
        };
        if !same {
            let _ = writeln!(differences, "{command}\n  redis:   {expected:?}\n  annulus: {got:?}");
        }
    }
    differences
}

#[tokio::test]
async fn replies_are_those_of_redis() {
    let Some(server) = Redis::start().await else {
        eprintln!("skipped: there is no redis-server on this machine");
        return;
    };
    let mut differences = String::new();
    let scripts = Path::new("tests/front/redis");
    for entry in std::fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        for version in ["2", "3"] {
            let served = serve(Memory::new(Limits::default())).await;
            // A node of a real ring instead, started with --flush-allowed.
            let node = std::env::var("ANNULUS_ADDRESS").unwrap_or_else(|_| served.address.to_string());
            let mut redis = server.connect().await;
            let mut annulus = Connection(BufReader::new(TcpStream::connect(&node).await.unwrap()));
            redis.ask("FLUSHALL").await;
            annulus.ask("FLUSHALL").await;
            for connection_version in
                [redis.ask(&format!("HELLO {version}")).await, annulus.ask(&format!("HELLO {version}")).await]
            {
                assert_ne!(connection_version.kind, '-');
            }
            let found = compare(&script, &mut redis, &mut annulus).await;
            if !found.is_empty() {
                let _ = writeln!(differences, "== {} in RESP{version}\n{found}", path.display());
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}
