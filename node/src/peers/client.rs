//! This node's side of a stream to one peer: connect, batch what is queued, hand out the answers, notice silence.

use super::Peers;
use super::asking::{Asking, Kind};
use super::frames::{FrameError, FrameReader, FrameWriter, greeting};
use super::listening::Listening;
use super::observed::Observed;
use super::pending::{Answer, Listener, PendingRequests};
use crate::config::Limits;
use crate::net;
use annulus_proto::uuid_from;
use annulus_proto::v1::{Frame, Request, request::Operation};
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::ring::Member;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

/// Time between two signs of life on a stream.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// A stream on which nothing is heard for this long is given up: four heartbeats. The peer is routed around before.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1000);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);
/// A peer that was never reached is waited for this long: it or this node has only just come.
const FIRST_CONTACT_MAX: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Requests that go into one frame at most.
const BATCH_REQUESTS_MAX: usize = 512;
/// Bytes that go into one frame, give or take one request.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;
/// Largest frame taken from a peer.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Why a peer gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no stream to it now. The request was not sent.
    #[error("not connected")]
    Down,
    /// The stream broke before the answer. The request may have been carried out.
    #[error("connection lost")]
    Lost,
    /// Its queue is full. The request was not sent.
    #[error("its queue is full")]
    Overloaded,
    /// It answered something that makes no sense.
    #[error("protocol error")]
    Protocol,
}

/// Another member of the ring.
pub struct Peer {
    incarnation: Uuid,
    name: String,
    address: String,
    queue: mpsc::Sender<Request>,
    source: parking_lot::Mutex<Option<mpsc::Receiver<Request>>>,
    queued_bytes: AtomicUsize,
    queued_bytes_max: usize,
    requests_max: usize,
    pub(super) pending: PendingRequests,
    /// For pages and digests: a connection of its own, so that bulk does not stand in the way of requests.
    bulk: tokio::sync::Mutex<Option<Channel>>,
    up: AtomicBool,
    pub(super) observed: Observed,
    came_up: Notify,
    /// Until when a first contact is waited for.
    first_contact_until: Instant,
    ever_up: AtomicBool,
    closed: CancellationToken,
}

impl Peer {
    pub(super) fn new(member: &Member, limits: &Limits, closed: CancellationToken) -> Arc<Self> {
        let (queue, source) = mpsc::channel(limits.peer_requests_max);
        Arc::new(Self {
            incarnation: member.incarnation,
            name: member.name.clone(),
            address: member.peer_address.clone(),
            queue,
            source: parking_lot::Mutex::new(Some(source)),
            queued_bytes: AtomicUsize::new(0),
            queued_bytes_max: limits.peer_queue_bytes_max,
            requests_max: limits.peer_requests_max,
            pending: PendingRequests::default(),
            bulk: tokio::sync::Mutex::default(),
            up: AtomicBool::new(false),
            observed: Observed::new(),
            came_up: Notify::new(),
            first_contact_until: Instant::now() + FIRST_CONTACT_MAX,
            ever_up: AtomicBool::new(false),
            closed,
        })
    }

    /// Identity of its data directory.
    #[must_use]
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// Name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host:port` it is reached at.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is to be sent requests: there is a stream to it, and it is neither silent for longer than is likely
    /// nor fails to answer. What this node thinks of it, and nobody else's business.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up_at(Instant::now())
    }

    /// The same for somebody who has just looked at the clock.
    #[must_use]
    pub fn is_up_at(&self, now: Instant) -> bool {
        self.is_connected() && self.observed.is_alive(now)
    }

    /// Whether there is a stream to it. A suspected peer can still be sent requests; only nobody should count on it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// What its answers to reads have taken, and those it has given soon enough.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Requests sent and not yet answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.pending.len()
    }

    /// Whether the peer is reachable, or becomes so while its first contact is still to be expected.
    async fn meets(&self) -> bool {
        loop {
            let came_up = self.came_up.notified();
            if self.is_connected() {
                return true;
            }
            if self.ever_up.load(Ordering::Acquire)
                || tokio::time::timeout_at(self.first_contact_until, came_up).await.is_err()
            {
                return self.is_connected();
            }
        }
    }

    /// Sends a request, made by the lists in force since that epoch, and waits for its answer, for ever if the peer
    /// keeps the stream alive without answering: put a timeout around it.
    ///
    /// # Errors
    /// [`PeerError`], each saying whether the request may have been carried out.
    pub async fn request(self: &Arc<Self>, key: Bytes, since: u64, operation: Operation) -> Answer {
        if !self.is_connected() && !self.meets().await {
            return Err(PeerError::Down);
        }
        self.ask(key, since, operation, Instant::now())?.await
    }

    /// Sends a request at this moment, which is now; the answer is waited for apart.
    ///
    /// # Errors
    /// [`PeerError`]: the request was not sent.
    pub fn ask(
        self: &Arc<Self>,
        key: Bytes,
        since: u64,
        operation: Operation,
        now: Instant,
    ) -> Result<Asking, PeerError> {
        if !self.is_connected() {
            return Err(PeerError::Down);
        }
        let kind = Kind::of(&operation);
        let request = self.admit(key, since, operation)?;
        let (id, answer) = self.pending.register(self.requests_max).ok_or(PeerError::Overloaded)?;
        let usual = if kind == Kind::Slow { Duration::ZERO } else { self.observed.asked(now) };
        let mut asking = Asking { peer: self.clone(), id, answer, kind, since: now, usual, ended: false };
        self.enqueue(Request { id, ..request }).inspect_err(|_| asking.take_back(now))?;
        Ok(asking)
    }

    /// Sends a request to this peer, which is that member of the ring, and returns at once; the listener hears
    /// of the answer, or of the end of the stream. For requests that do not wait for third parties.
    ///
    /// # Errors
    /// [`PeerError`]: the request was not sent, and the listener will hear nothing of it.
    pub fn send(
        &self,
        key: Bytes,
        since: u64,
        operation: Operation,
        member: MemberIndex,
        listener: Arc<dyn Listener>,
    ) -> Result<(), PeerError> {
        if !self.is_connected() {
            return Err(PeerError::Down);
        }
        let request = self.admit(key, since, operation)?;
        let id = self.pending.register_listener(self.requests_max, member, listener);
        let id = id.ok_or(PeerError::Overloaded)?;
        self.observed.asked(Instant::now());
        self.enqueue(Request { id, ..request }).inspect_err(|_| {
            self.pending.forget(id);
            self.observed.listeners_heard(1);
        })
    }

    /// A request that has yet to be given its number, if there is room for it in the queue.
    fn admit(&self, key: Bytes, since: u64, operation: Operation) -> Result<Request, PeerError> {
        let request = Request { id: 0, key, since, operation: Some(operation) };
        let queued = self.queued_bytes.load(Ordering::Relaxed) + request_bytes(&request);
        if queued > self.queued_bytes_max { Err(PeerError::Overloaded) } else { Ok(request) }
    }

    fn enqueue(&self, request: Request) -> Result<(), PeerError> {
        let size = request_bytes(&request);
        self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        self.queue.try_send(request).map_err(|_| {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            PeerError::Overloaded
        })
    }

    /// The connection for bulk calls, made when it is first wanted; it reconnects by itself.
    ///
    /// # Errors
    /// When the peer cannot be connected to now.
    pub async fn bulk_channel(&self, connector: &net::Connector) -> Result<Channel, net::ChannelError> {
        let mut bulk = self.bulk.lock().await;
        if let Some(channel) = &*bulk {
            return Ok(channel.clone());
        }
        let channel = net::channel(connector, &self.address, CONNECT_TIMEOUT).await?;
        *bulk = Some(channel.clone());
        Ok(channel)
    }

    /// Ends the stream for good.
    pub fn close(&self) {
        self.closed.cancel();
    }

    fn sent(&self, request: &Request) {
        self.queued_bytes.fetch_sub(request_bytes(request), Ordering::Relaxed);
    }
}

fn request_bytes(request: &Request) -> usize {
    let operation = match &request.operation {
        Some(Operation::Store(object)) => object.len(),
        Some(Operation::Hint(hint)) => hint.object.len() + 16,
        Some(Operation::Coordinate(write)) => write.value.as_ref().map_or(0, Bytes::len) + 64,
        _ => 16,
    };
    32 + request.key.len() + operation
}

/// Keeps a stream to the peer until it is closed.
pub(super) async fn run(peer: Arc<Peer>, peers: Arc<Peers>) {
    let Some(mut source) = peer.source.lock().take() else { return };
    let mut pause = RETRY_MIN;
    loop {
        let session = tokio::select! {
            () = peer.closed.cancelled() => return,
            session = session(&peer, &peers, &mut source) => session,
        };
        if peer.up.swap(false, Ordering::AcqRel) {
            tracing::info!(peer = peer.name, "peer is unreachable");
            pause = RETRY_MIN;
        }
        if let Err(error) = session {
            tracing::debug!(peer = peer.name, address = peer.address, %error, "no stream to peer");
        }
        while let Ok(request) = source.try_recv() {
            peer.sent(&request);
        }
        peer.pending.fail_all(&PeerError::Lost);
        tokio::select! {
            () = peer.closed.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
        }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it is incarnation {0}, another one than the ring names")]
    OtherIncarnation(Uuid),
    #[error("it said no hello")]
    NoHello,
    #[error("it was silent for {SILENCE_MAX:?}")]
    Silent,
    #[error("the stream ended")]
    Ended,
}

/// One stream, from connecting to its end.
async fn session(
    peer: &Arc<Peer>,
    peers: &Arc<Peers>,
    source: &mut mpsc::Receiver<Request>,
) -> Result<(), SessionError> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, (peers.connector)(peer.address.clone())).await;
    let io = connecting.map_err(|_| SessionError::ConnectTimeout)?.map_err(SessionError::Connect)?;
    let (reader, writer) = tokio::io::split(io);
    let (mut incoming, mut frames) = (FrameReader::new(reader), FrameWriter::new(writer));
    frames.begin();
    frames.add(&greeting(&peers.ring, peer.incarnation))?;
    tokio::time::timeout(CONNECT_TIMEOUT, frames.flush()).await.map_err(|_| SessionError::Silent)??;
    greet(peer, &mut incoming).await?;
    while let Ok(request) = source.try_recv() {
        peer.sent(&request);
    }
    // Whoever came between the end of the stream before and now.
    peer.pending.fail_all(&PeerError::Lost);
    peer.observed.begins();
    peer.ever_up.store(true, Ordering::Release);
    peer.up.store(true, Ordering::Release);
    peer.came_up.notify_waiters();
    tracing::info!(peer = peer.name, "peer is reachable");
    let (ring_wanted, wanted) = mpsc::channel(1);
    tokio::select! {
        ended = send(peer, peers, source, frames, wanted) => ended,
        ended = receive(peer, peers, &mut incoming, &ring_wanted) => ended,
    }
}

/// The peer must be who the ring says: a node with another data directory does not have what this one held.
async fn greet<R: AsyncRead + Unpin>(peer: &Peer, incoming: &mut FrameReader<R>) -> Result<(), SessionError> {
    let first = tokio::time::timeout(SILENCE_MAX, incoming.next()).await;
    let frame = first.map_err(|_| SessionError::Silent)??.ok_or(SessionError::Ended)?;
    let hello = frame.hello.ok_or(SessionError::NoHello)?;
    let incarnation = uuid_from("incarnation", &hello.incarnation).map_err(|_| SessionError::NoHello)?;
    if incarnation != peer.incarnation {
        return Err(SessionError::OtherIncarnation(incarnation));
    }
    Ok(())
}

async fn send<W: AsyncWrite + Unpin>(
    peer: &Peer,
    peers: &Peers,
    source: &mut mpsc::Receiver<Request>,
    mut frames: FrameWriter<W>,
    mut ring_wanted: mpsc::Receiver<()>,
) -> Result<(), SessionError> {
    let mut heartbeat = peers.beat.ticks(HEARTBEAT);
    let mut taken: Vec<Request> = Vec::new();
    loop {
        let mut frame = Frame::default();
        tokio::select! {
            biased;
            Some(()) = ring_wanted.recv() => {
                frame.ring = peers.ring.load().map(|installed| installed.json.clone()).unwrap_or_default();
            }
            request = source.recv() => {
                let Some(request) = request else { return Err(SessionError::Ended) };
                taken.push(request);
                // Whoever is about to run on this thread may have requests to add: a larger batch costs everyone less.
                tokio::task::yield_now().await;
                let mut bytes = 0;
                while taken.len() < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX {
                    bytes += taken.last().map_or(0, request_bytes);
                    let Ok(request) = source.try_recv() else { break };
                    taken.push(request);
                }
                taken.iter().for_each(|request| peer.sent(request));
                frame.requests = std::mem::take(&mut taken);
            }
            _ = heartbeat.tick() => {}
        }
        frame.epoch = peers.ring.epoch();
        frames.add(&frame)?;
        // What queues up while there is no room goes out as one batch.
        frames.flush().await?;
    }
}

async fn receive<R: AsyncRead + Unpin>(
    peer: &Peer,
    peers: &Arc<Peers>,
    incoming: &mut FrameReader<R>,
    ring_wanted: &mpsc::Sender<()>,
) -> Result<(), SessionError> {
    let mut listening = Listening::new();
    loop {
        let frame = tokio::select! {
            biased;
            frame = incoming.next() => frame?.ok_or(SessionError::Ended)?,
            () = listening.too_long() => return Err(SessionError::Silent),
        };
        listening.heard();
        peer.observed.heard();
        // A full channel means that the ring is already about to be sent.
        if frame.ring_wanted || (frame.epoch < peers.ring.epoch() && frame.ring.is_empty()) {
            let _ = ring_wanted.try_send(());
        }
        if !frame.ring.is_empty() {
            peers.offer_ring(&frame.ring).await;
        }
        let heard = peer.pending.answer(frame.replies.into_iter().map(|reply| (reply.id, reply.result)));
        peer.observed.listeners_heard(heard);
    }
}
