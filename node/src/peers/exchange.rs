//! The other side of a stream: requests of a peer come in frames and are answered in frames.

use super::Peers;
use super::client::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, HEARTBEAT, SILENCE_MAX};
use super::frames::{FrameReader, FrameWriter, greeting};
use super::incoming;
use super::listening::Listening;
use crate::net::{BoxedIo, Incoming};
use crate::replica::InFlight;
use crate::ring_state::RingState;
use crate::storage::{StorageError, Submitted};
use annulus_proto::uuid_from;
use annulus_proto::v1::peer_server::{Peer as PeerApi, PeerServer};
use annulus_proto::v1::{
    CollectReply, CollectRequest, DigestReply, DigestRequest, Frame, ItemsReply, ItemsRequest, PageReply,
    PageRequest, Reply, Request, RootsReply, RootsRequest, StaleEpoch, reply,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use uuid::Uuid;

/// How long a request waits for a ring that its sender already has.
const RING_WAIT_MAX: Duration = Duration::from_secs(2);
/// Frames of one peer that are being worked on at once.
const FRAMES_AT_ONCE_MAX: usize = 64;
/// Frames of replies that wait to be written.
const REPLY_FRAMES_MAX: usize = 8;

/// Carries out what peers ask of this node.
pub trait RequestHandler: Send + Sync + 'static {
    /// Begins one request, in the order of the frame, and ends it if that needs no waiting.
    fn begin(self: &Arc<Self>, request: Request) -> Begun;

    /// The answer to a request whose object was being stored.
    fn stored(&self, outcome: Result<(), StorageError>) -> reply::Result;

    /// Carries out one request. Everything up to the first wait happens in the order of the frame.
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<'static, reply::Result>;

    /// Answers a page of a token range.
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<PageReply, Status>>;

    /// Answers the digests of a token range.
    fn digest(&self, request: DigestRequest) -> BoxFuture<'_, Result<DigestReply, Status>>;

    /// Answers what a member that compares has asked first.
    ///
    /// # Errors
    /// When the question does not fit this node or its ring.
    fn roots(&self, request: &RootsRequest) -> Result<RootsReply, Status>;

    /// Answers which items of some token ranges differ.
    fn items(&self, request: ItemsRequest) -> BoxFuture<'_, Result<ItemsReply, Status>>;

    /// Carries out a stage of collecting what is dead.
    fn collect(&self, request: CollectRequest) -> BoxFuture<'_, Result<CollectReply, Status>>;

    /// Something takes off that carries objects here: kept until it has landed.
    fn take_off(&self) -> InFlight;

    /// So many requests that wait for nobody else were answered, the last of them so long after they had come.
    fn answered(&self, requests: usize, took: Duration);
}

/// How far a request has got without waiting.
pub enum Begun {
    /// To its end.
    Done(reply::Result),
    /// Its object is queued and becomes durable.
    Storing(Submitted),
    /// It waits for something else.
    Waiting(BoxFuture<'static, reply::Result>),
}

/// What a node does for its peers: streams of requests, and the gRPC service `Peer`.
pub struct PeerService<H> {
    ring: Arc<RingState>,
    peers: Arc<Peers>,
    handler: Arc<H>,
    /// The newest stream of each sender; a newer one ends it.
    streams: Mutex<HashMap<Uuid, CancellationToken>>,
}

impl<H: RequestHandler> PeerService<H> {
    /// The service, without any connection.
    pub fn new(ring: Arc<RingState>, peers: Arc<Peers>, handler: Arc<H>) -> Arc<Self> {
        Arc::new(Self { ring, peers, handler, streams: Mutex::default() })
    }

    /// The gRPC part, to be added to a server.
    #[must_use]
    pub fn grpc(self: &Arc<Self>) -> PeerServer<Self> {
        PeerServer::from_arc(self.clone())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Serves the peer streams that come in, until `stop`; the connections that are gRPC's are handed out.
    #[must_use]
    pub fn sort_out(self: &Arc<Self>, incoming: Incoming, stop: CancellationToken) -> Incoming {
        incoming::sort_out(incoming, self.clone(), stop)
    }

    /// Serves one peer stream to its end.
    pub(super) async fn exchange(&self, io: BoxedIo) {
        let (reader, writer) = tokio::io::split(io);
        let mut incoming = FrameReader::new(reader);
        let Ok(Ok(Some(first))) = tokio::time::timeout(SILENCE_MAX, incoming.next()).await else { return };
        let (sender, meant) = match self.check(&first) {
            Ok(both) => both,
            Err(why) => return tracing::debug!(%why, "a peer stream was refused"),
        };
        let (replies, outgoing) = mpsc::channel::<Frame>(REPLY_FRAMES_MAX);
        let _ = replies.try_send(greeting(&self.ring, sender));
        if !meant {
            // It hears who is here instead. With us it has a stream of its own, which goes on.
            drop(replies);
            let _ = tokio::time::timeout(SILENCE_MAX, FrameWriter::new(writer).write_all(outgoing)).await;
            return;
        }
        let replaced = self.newest_of(sender);
        let session = Session {
            ring: self.ring.clone(),
            peers: self.peers.clone(),
            handler: self.handler.clone(),
            replies,
            replaced,
        };
        // A task of its own, which is not cut short while it begins what a frame holds.
        tokio::spawn(session.run(incoming));
        if let Err(error) = FrameWriter::new(writer).write_all(outgoing).await {
            tracing::debug!(%error, "a peer stream broke");
        }
    }
}

#[tonic::async_trait]
impl<H: RequestHandler> PeerApi for PeerService<H> {
    async fn page(&self, request: tonic::Request<PageRequest>) -> Result<Response<PageReply>, Status> {
        self.handler.page(request.into_inner()).await.map(Response::new)
    }

    async fn digest(&self, request: tonic::Request<DigestRequest>) -> Result<Response<DigestReply>, Status> {
        self.handler.digest(request.into_inner()).await.map(Response::new)
    }

    async fn roots(&self, request: tonic::Request<RootsRequest>) -> Result<Response<RootsReply>, Status> {
        self.handler.roots(request.get_ref()).map(Response::new)
    }

    async fn items(&self, request: tonic::Request<ItemsRequest>) -> Result<Response<ItemsReply>, Status> {
        self.handler.items(request.into_inner()).await.map(Response::new)
    }

    async fn collect(&self, request: tonic::Request<CollectRequest>) -> Result<Response<CollectReply>, Status> {
        self.handler.collect(request.into_inner()).await.map(Response::new)
    }
}

impl<H> PeerService<H> {
    /// Who speaks, and whether this node is meant.
    fn check(&self, first: &Frame) -> Result<(Uuid, bool), Status> {
        let hello = first.hello.as_ref().ok_or_else(|| Status::invalid_argument("the first frame is no hello"))?;
        let uuid =
            |name, bytes| uuid_from(name, bytes).map_err(|error| Status::invalid_argument(error.to_string()));
        let (ours, theirs) = (self.ring.cluster(), uuid("cluster", &hello.cluster)?);
        if theirs == ours {
            let meant = hello.meant.is_empty() || uuid("meant", &hello.meant)? == self.ring.incarnation();
            return Ok((uuid("incarnation", &hello.incarnation)?, meant));
        }
        Err(Status::failed_precondition(format!("this node belongs to cluster {ours}, not to {theirs}")))
    }
}

impl<H> PeerService<H> {
    /// The sender has begun a new stream: what is left of its stream before is not to be begun any more, since the
    /// sender does not know of it and counts it as lost.
    fn newest_of(&self, sender: Uuid) -> CancellationToken {
        let replaced = CancellationToken::new();
        let mut streams = self.streams.lock();
        streams.retain(|_, stream| !stream.is_cancelled());
        if let Some(before) = streams.insert(sender, replaced.clone()) {
            before.cancel();
        }
        replaced
    }
}

/// One stream from a peer.
struct Session<H> {
    ring: Arc<RingState>,
    peers: Arc<Peers>,
    handler: Arc<H>,
    replies: mpsc::Sender<Frame>,
    /// The sender has begun a newer stream.
    replaced: CancellationToken,
}

impl<H: RequestHandler> Session<H> {
    async fn run<R: AsyncRead + Unpin>(self, mut incoming: FrameReader<R>) {
        let session = Arc::new(self);
        let at_once = Arc::new(Semaphore::new(FRAMES_AT_ONCE_MAX));
        let mut heartbeat = session.peers.beat().ticks(HEARTBEAT);
        let mut listening = Listening::new();
        loop {
            let frame = tokio::select! {
                biased;
                _ = heartbeat.tick() => {
                    session.beat();
                    continue;
                }
                message = incoming.next() => match message {
                    Ok(Some(frame)) => frame,
                    Ok(None) | Err(_) => return,
                },
                // A peer that is not heard is told so by the end of the stream. If only its way here is cut, it would
                // else take the heartbeats from here for a sign that all is well, and wait for answers in vain.
                () = listening.too_long() => return,
                () = session.replaced.cancelled() => return,
            };
            session.gossip(&frame).await;
            if frame.requests.is_empty() {
                listening.heard();
                continue;
            }
            let permit = tokio::select! {
                permit = at_once.clone().acquire_owned() => permit,
                // What is slow, as when the disk is, is alive.
                () = session.beat_on(&mut heartbeat) => return,
            };
            let Ok(permit) = permit else { return };
            // Only now: while this side did not listen, the other was not silent.
            listening.heard();
            let flight = session.handler.take_off();
            // After taking off, so that whoever waits for what is in flight waits for this frame or it is not begun.
            if session.replaced.is_cancelled() {
                return;
            }
            let (requests, ahead) = split(frame.requests, session.ring.epoch());
            let begun = session.begin(requests).await;
            if !begun.is_empty() || !ahead.is_empty() {
                let session = session.clone();
                tokio::spawn(async move {
                    tokio::join!(begun.finish(&session), session.begin_ahead(ahead));
                    drop((permit, flight));
                });
            }
        }
    }

    /// Gives a sign of life.
    fn beat(&self) {
        // No room means that replies are under way, which is a sign of life too.
        let _ = self.replies.try_send(self.frame());
    }

    /// Gives signs of life until the sender has begun a newer stream.
    async fn beat_on(&self, heartbeat: &mut Interval) {
        loop {
            tokio::select! {
                () = self.replaced.cancelled() => return,
                _ = heartbeat.tick() => self.beat(),
            }
        }
    }

    fn frame(&self) -> Frame {
        Frame { epoch: self.ring.epoch(), ..Frame::default() }
    }

    async fn gossip(&self, frame: &Frame) {
        if !frame.ring.is_empty() {
            self.peers.offer_ring(&frame.ring).await;
        } else if frame.epoch > self.ring.epoch() {
            let _ = self.replies.try_send(Frame { ring_wanted: true, ..self.frame() });
        }
    }

    /// Carries out requests by lists that only their sender knows yet, once its ring is here. When it does not come in
    /// time, they are refused one by one as from an unknown ring.
    async fn begin_ahead(&self, requests: Vec<Request>) {
        let Some(newest) = requests.iter().map(|request| request.since).max() else { return };
        let _ = self.replies.send(Frame { ring_wanted: true, ..self.frame() }).await;
        let _ = tokio::time::timeout(RING_WAIT_MAX, self.ring.reached(newest)).await;
        self.begin(requests).await.finish(self).await;
    }

    /// Begins all requests of a frame, answers those that need no waiting, in one frame, and returns the others.
    async fn begin(&self, requests: Vec<Request>) -> Unanswered {
        let mut unanswered = Unanswered::new(Instant::now());
        let (mut done, mut done_bytes, mut at_once) = (Vec::new(), 0, 0);
        for request in requests {
            let id = request.id;
            match self.handler.begin(request) {
                Begun::Done(result) => {
                    at_once += 1;
                    done_bytes += if let reply::Result::Object(object) = &result { object.len() } else { 0 };
                    done.push(Reply { id, result: Some(result) });
                    if done_bytes > BATCH_BYTES_MAX {
                        self.send(std::mem::take(&mut done)).await;
                        done_bytes = 0;
                    }
                }
                Begun::Storing(durable) => unanswered.storing.push_back((id, durable)),
                Begun::Waiting(future) => unanswered.waiting.push((id, future)),
            }
        }
        if !done.is_empty() {
            self.send(done).await;
        }
        if at_once > 0 {
            self.handler.answered(at_once, unanswered.came.elapsed());
        }
        unanswered
    }

    async fn send(&self, replies: Vec<Reply>) {
        let stale =
            replies.iter().any(|reply| matches!(reply.result, Some(reply::Result::StaleEpoch(StaleEpoch { .. }))));
        let ring = match self.ring.load() {
            Some(installed) if stale => installed.json.clone(),
            _ => Bytes::new(),
        };
        let _ = self.replies.send(Frame { replies, ring, ..self.frame() }).await;
    }
}

/// Requests that can be decided about by the ring of this epoch, and those that need a newer one.
fn split(requests: Vec<Request>, epoch: u64) -> (Vec<Request>, Vec<Request>) {
    if requests.iter().all(|request| request.since <= epoch) {
        return (requests, Vec::new());
    }
    requests.into_iter().partition(|request| request.since <= epoch)
}

/// Requests of one frame that have begun and wait.
struct Unanswered {
    came: Instant,
    /// In the order of the commit queue.
    storing: VecDeque<(u64, Submitted)>,
    waiting: Vec<(u64, BoxFuture<'static, reply::Result>)>,
}

impl Unanswered {
    fn new(came: Instant) -> Self {
        Self { came, storing: VecDeque::new(), waiting: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.storing.is_empty() && self.waiting.is_empty()
    }

    /// Answers what is done together in one frame. Coordination of writes, which waits for other nodes, does not hold up
    /// the rest.
    async fn finish<H: RequestHandler>(self, session: &Session<H>) {
        let Self { came, storing, waiting } = self;
        tokio::join!(Self::finish_storing(came, storing, session), Self::finish_waiting(waiting, session));
    }

    async fn finish_storing<H: RequestHandler>(
        came: Instant,
        mut storing: VecDeque<(u64, Submitted)>,
        session: &Session<H>,
    ) {
        while let Some((id, durable)) = storing.pop_front() {
            let mut replies = vec![Reply { id, result: Some(session.handler.stored(durable.await)) }];
            // The same flush has most likely made the following ones durable as well.
            while let Some((id, durable)) = storing.front_mut() {
                let Some(outcome) = durable.now_or_never() else { break };
                replies.push(Reply { id: *id, result: Some(session.handler.stored(outcome)) });
                storing.pop_front();
            }
            let stored = replies.len();
            session.send(replies).await;
            session.handler.answered(stored, came.elapsed());
        }
    }

    async fn finish_waiting<H: RequestHandler>(
        waiting: Vec<(u64, BoxFuture<'static, reply::Result>)>,
        session: &Session<H>,
    ) {
        let mut answers: FuturesUnordered<_> = waiting
            .into_iter()
            .map(|(id, result)| async move { Reply { id, result: Some(result.await) } })
            .collect();
        let mut replies = Vec::new();
        while let Some(reply) = answers.next().await {
            replies.push(reply);
            while let Some(Some(reply)) = answers.next().now_or_never() {
                replies.push(reply);
            }
            session.send(std::mem::take(&mut replies)).await;
        }
    }
}
