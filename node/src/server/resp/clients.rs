//! The open connections: what CLIENT LIST tells of them, and how they are told to end.

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
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
    stop: AtomicBool,
    waker: AtomicWaker,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// By CLIENT SETNAME or HELLO.
    pub(super) name: String,
    /// By CLIENT SETINFO LIB-NAME.
    pub(super) library: String,
    /// By CLIENT SETINFO LIB-VER.
    pub(super) library_version: String,
}

impl Clients {
    /// Lets a connection in; `None`: there are `connections_max` already.
    pub(super) fn enter(self: &Arc<Self>, now_ms: u64, connections_max: usize) -> Option<Entry> {
        let mut open = self.open.lock();
        if open.len() >= connections_max {
            return None;
        }
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Relaxed) + 1,
            since_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            last_command: AtomicUsize::new(usize::MAX),
            names: Mutex::default(),
            protocol: AtomicUsize::new(2),
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

    /// The one with this id.
    pub(super) fn find(&self, id: u64) -> Option<Arc<Client>> {
        self.open.lock().get(&id).cloned()
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

    /// One line of CLIENT LIST.
    pub(super) fn line(&self, now_ms: u64, command: &str) -> String {
        let names = self.names.lock().clone();
        let age = now_ms.saturating_sub(self.since_ms) / 1000;
        let idle = now_ms.saturating_sub(self.active_ms.load(Relaxed)) / 1000;
        let mut line =
            format!("id={} addr=?:0 laddr=?:0 fd=-1 name={} age={age} idle={idle}", self.id, names.name);
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 \
             obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.protocol.load(Relaxed),
            names.library,
            names.library_version,
        );
        line
    }
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
