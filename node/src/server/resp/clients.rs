//! The open connections: what CLIENT LIST tells of them, and how they are told to end.

use crate::net::Ends;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;

/// All open connections of one server.
#[derive(Debug, Default)]
pub(super) struct Clients {
    last_id: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// One connection, as others see it.
#[derive(Debug)]
pub(super) struct Client {
    /// Never used twice by one process.
    pub(super) id: u64,
    /// Addresses of both ends.
    pub(super) ends: Ends,
    /// When it was accepted, in milliseconds since 1970.
    pub(super) since_ms: u64,
    /// When it last sent a command, in milliseconds since 1970.
    pub(super) active_ms: AtomicU64,
    /// Place of its last command in the table.
    pub(super) last_command: AtomicUsize,
    /// What it says of itself.
    pub(super) names: Mutex<Names>,
    /// 2 or 3.
    pub(super) protocol: AtomicUsize,
    /// What it holds.
    pub(super) holds: Holds,
    stop: AtomicBool,
    waker: AtomicWaker,
}

/// What a connection holds, as CLIENT LIST tells it.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Bytes read and not yet begun.
    pub(super) input_bytes: AtomicUsize,
    /// Bytes of room for them.
    pub(super) input_room_bytes: AtomicUsize,
    /// Bytes of requests under way.
    pub(super) request_bytes: AtomicUsize,
    /// Bytes of replies that have yet to be taken.
    pub(super) output_bytes: AtomicUsize,
    /// Bytes read and written since it began.
    pub(super) received_bytes: AtomicU64,
    /// The same of what was written.
    pub(super) sent_bytes: AtomicU64,
    /// Commands since it began.
    pub(super) commands: AtomicU64,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Whom it is taken for; empty: it has not said who it is.
    pub(super) user: String,
    /// By CLIENT SETNAME or HELLO.
    pub(super) name: String,
    /// By CLIENT SETINFO LIB-NAME.
    pub(super) library: String,
    /// By CLIENT SETINFO LIB-VER.
    pub(super) library_version: String,
}

impl Clients {
    /// Lets a connection in; `None`: there are `connections_max` already.
    pub(super) fn enter(self: &Arc<Self>, ends: Ends, now_ms: u64, connections_max: usize) -> Option<Entry> {
        let mut open = self.open.lock();
        if open.len() >= connections_max {
            return None;
        }
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Relaxed) + 1,
            ends,
            since_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            last_command: AtomicUsize::new(usize::MAX),
            names: Mutex::default(),
            protocol: AtomicUsize::new(2),
            holds: Holds::default(),
            stop: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        open.insert(client.id, client.clone());
        Some(Entry { clients: self.clone(), client })
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// All of them by id.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.open.lock().values().cloned().collect()
    }

    /// Tells all of them to end.
    pub(super) fn stop_all(&self) {
        self.all().iter().for_each(|client| client.stop());
    }
}

impl Client {
    /// Tells it to take no more requests, to answer those it has, and to close.
    pub(super) fn stop(&self) {
        self.stop.store(true, SeqCst);
        self.waker.wake();
    }

    /// Whether it has been told to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// Has this woken when it is told to end, unless it has been already.
    pub(super) fn when_stopped(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Address of the client; `?:0` where it is not known.
    pub(super) fn address(&self) -> String {
        written(self.ends.remote)
    }

    /// Address that the client connected to.
    pub(super) fn local_address(&self) -> String {
        written(self.ends.local)
    }

    /// One line of CLIENT LIST.
    pub(super) fn line(&self, now_ms: u64, command: &str) -> String {
        let names = self.names.lock().clone();
        let age = now_ms.saturating_sub(self.since_ms) / 1000;
        let idle = now_ms.saturating_sub(self.active_ms.load(Relaxed)) / 1000;
        let holds = &self.holds;
        let (input, room) = (holds.input_bytes.load(Relaxed), holds.input_room_bytes.load(Relaxed));
        let (requests, output) = (holds.request_bytes.load(Relaxed), holds.output_bytes.load(Relaxed));
        let user = if names.user.is_empty() { "(none)" } else { &names.user };
        let mut line = format!(
            "id={} addr={} laddr={} fd=-1 name={} age={age} idle={idle} flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 \
             watch=0 qbuf={input} qbuf-free={} argv-mem={requests} multi-mem=0 rbs=0 rbp=0 obl={output} oll=0 omem=0 \
             tot-mem={}",
            self.id,
            self.address(),
            self.local_address(),
            names.name,
            room.saturating_sub(input),
            room + requests + output,
        );
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " events=r cmd={command} user={user} redir=-1 resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} \
             tot-cmds={}",
            self.protocol.load(Relaxed),
            names.library,
            names.library_version,
            holds.received_bytes.load(Relaxed),
            holds.sent_bytes.load(Relaxed),
            holds.commands.load(Relaxed),
        );
        line
    }
}

fn written(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| String::from("?:0"), |address| address.to_string())
}

/// A connection's place among the open ones; given up when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    clients: Arc<Clients>,
    /// The connection.
    pub(super) client: Arc<Client>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clients.open.lock().remove(&self.client.id);
    }
}
