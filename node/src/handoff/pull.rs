//! Copying partitions to this node: for each partition that fills with this node as a new holder, copy it from one of
//! its holders and compare with enough others, then say so. Where lists get shorter those who stay compare, too.

mod copy;
mod fetch_ahead;
mod order;
mod recover;
mod room;

use super::compare::CompareError;
use super::foreground::{self, Foreground};
use super::pace::Pace;
use super::record::{self, MoveRecord, MovedTotal};
use super::spool::Spool;
use crate::config::Limits;
use crate::peers::Peers;
use crate::planted;
use crate::replica::Replica;
use crate::ring_state::{Installed, RingState};
use crate::storage::{Change, EngineError};
use dynamo::moves::landing;
use dynamo::preference::MemberIndex;
use dynamo::quorum::holders_to_meet;
use dynamo::ring::Phase;
use order::Order;
use parking_lot::Mutex;
use room::Rooms;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Of the partitions that may be copied at once, what one takes beside clients.
const PLACES_BESIDE_CLIENTS: u32 = 2;

/// Copying that has got nowhere for so long says whom it waits for.
const STALLED: Duration = Duration::from_secs(5);

/// What this node copies and has copied.
pub struct Pulls {
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    at_once: Arc<Semaphore>,
    pace: Pace,
    room: Rooms,
    spool: Spool,
    order: Order,
    foreground: Arc<Foreground>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    synced: BTreeSet<MoveRecord>,
    /// Moves of which anything may be written down.
    recorded: BTreeSet<MoveRecord>,
    copying: BTreeSet<MoveRecord>,
    /// Who is copied from or compared with.
    asked: BTreeMap<MoveRecord, MemberIndex>,
    /// When anything last arrived or was completed, or copying began.
    progress: Option<Instant>,
    moved: MovedTotal,
    moved_since_start: u64,
    last_error: Option<String>,
}

/// What a partition takes of those that may be copied at once.
struct Places(Option<OwnedSemaphorePermit>);

/// A look at the pulls, for status.
#[derive(Clone, Debug, Default)]
pub struct PullsView {
    /// Bytes a second that this node copies at most, by what clients feel of it.
    pub bytes_per_second: f64,
    /// The same, while it gives way to clients; `None`: there are none.
    pub beside_clients: Option<f64>,
    /// Moves that are complete.
    pub synced: BTreeSet<MoveRecord>,
    /// Partitions being copied or waiting for their turn.
    pub copying: usize,
    /// What the moves of the last target brought.
    pub moved: MovedTotal,
    /// Bytes received by moves since the process started.
    pub moved_since_start: u64,
    /// Why the last attempt that failed did so; `None` once everything is copied.
    pub last_error: Option<String>,
}

/// Why a partition was not copied. What had arrived stays, and the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("partition {partition}: {error}")]
    Compare { partition: u32, error: CompareError },
    #[error("partition {partition}: only {met} of {need} holders of the old list could be asked; last: {why}")]
    TooFewHolders { partition: u32, met: usize, need: usize, why: String },
    #[error("the move is no longer wanted")]
    Unwanted,
}

impl Pulls {
    /// Takes up what was recorded before a restart.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn open(
        ring: Arc<RingState>,
        replica: Arc<Replica>,
        peers: Arc<Peers>,
        foreground: Arc<Foreground>,
        spool: Spool,
        limits: &Limits,
    ) -> Result<Arc<Self>, EngineError> {
        let engine = replica.engine().as_ref();
        let (synced, recorded) = record::recorded(engine)?;
        let state = State { synced, recorded, moved: MovedTotal::read(engine)?, ..State::default() };
        Ok(Arc::new(Self {
            at_once: Arc::new(Semaphore::new(limits.parallel_pulls_max.max(PLACES_BESIDE_CLIENTS as usize))),
            pace: Pace::new(limits.transfer_bytes_per_second_max, foreground.clone()),
            room: Rooms::new(limits.pull_bytes_under_way_min, spool.keeps()),
            spool,
            order: Order::new(),
            foreground,
            ring,
            replica,
            peers,
            state: Mutex::new(state),
        }))
    }

    /// A look at what is copied.
    #[must_use]
    pub fn view(&self) -> PullsView {
        let state = self.state.lock();
        PullsView {
            bytes_per_second: self.pace.rate(),
            beside_clients: self.pace.beside_clients(),
            synced: state.synced.clone(),
            copying: state.copying.len(),
            moved: state.moved,
            moved_since_start: state.moved_since_start,
            last_error: state
                .last_error
                .clone()
                .filter(|_| !state.copying.is_empty())
                .or_else(|| self.stalled(&state)),
        }
    }

    /// Whom copying waits for, if it has got nowhere for a while.
    fn stalled(&self, state: &State) -> Option<String> {
        let (record, holder) = state.asked.first_key_value()?;
        let seconds =
            state.progress.map(|progress| progress.elapsed()).filter(|since| *since > STALLED)?.as_secs();
        let installed = self.ring.load()?;
        let name = &installed.view.member(*holder)?.name;
        Some(format!("partition {}: nothing has come from {name} for {seconds} s", record.partition))
    }

    /// Follows the ring and copies what it wants here, until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut epochs = self.ring.watch();
        let mut pulls = JoinSet::new();
        let (this, that) = (self.clone(), self.clone());
        let copying = move || !this.state.lock().copying.is_empty();
        let watch = foreground::watch(
            self.foreground.clone(),
            self.peers.beat(),
            copying,
            move |pressure, copying| that.pace.adjust(pressure, copying),
            shutdown.clone(),
        );
        pulls.spawn(watch);
        loop {
            let wanted = self.wanted();
            self.forget_unwanted(&wanted).await;
            if !wanted.is_empty() {
                self.expect();
            }
            for wanted in wanted {
                if self.begin(wanted) {
                    pulls.spawn(self.clone().pull_until_synced(wanted, shutdown.clone()));
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = epochs.changed() => if changed.is_err() { return },
                Some(_) = pulls.join_next() => {}
            }
        }
    }

    /// Takes a look at how much the target in force brings here.
    fn expect(&self) {
        let Some(installed) = self.ring.load() else { return };
        let ring = installed.view.ring();
        let (Some(me), Some(target)) = (installed.me, &ring.target) else { return };
        self.room.expect(target.since, || landing(ring).get(&me).copied().unwrap_or_default());
    }

    /// Moves that the ring in force wants of this node.
    fn wanted(&self) -> BTreeSet<MoveRecord> {
        let Some(installed) = self.ring.load() else { return BTreeSet::new() };
        let Some(me) = installed.me else { return BTreeSet::new() };
        (0u32..)
            .zip(&installed.view.ring().partitions)
            .filter(|(_, placement)| placement.is_to_sync(me))
            .map(|(partition, placement)| MoveRecord { partition, since: placement.since })
            .collect()
    }

    fn begin(&self, wanted: MoveRecord) -> bool {
        let mut state = self.state.lock();
        let idle = state.copying.is_empty();
        let begins = !state.synced.contains(&wanted) && state.copying.insert(wanted);
        if idle && begins {
            state.progress = Some(Instant::now());
        }
        begins
    }

    fn is_wanted(&self, record: MoveRecord) -> Option<(Arc<Installed>, MemberIndex, Vec<MemberIndex>)> {
        let installed = self.ring.load()?;
        let me = installed.me?;
        let placement = installed.view.placement(record.partition)?;
        let also = placement.also.as_ref()?;
        let same = also.phase == Phase::Filling && placement.since == record.since && also.list.contains(&me);
        let holders = placement.preference.clone();
        same.then_some((installed, me, holders))
    }

    async fn pull_until_synced(self: Arc<Self>, record: MoveRecord, shutdown: CancellationToken) {
        loop {
            let places = if self.pace.is_alone() { 1 } else { PLACES_BESIDE_CLIENTS };
            let Ok(permit) = self.at_once.clone().acquire_many_owned(places).await else { return };
            let pulled = tokio::select! {
                () = shutdown.cancelled() => return,
                pulled = self.pull(record, Places(Some(permit))) => pulled,
            };
            match pulled {
                Ok(()) | Err(PullError::Unwanted) => break,
                Err(error) => {
                    tracing::info!(%error, "copying a partition is tried again");
                    self.state.lock().last_error = Some(error.to_string());
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
        let mut state = self.state.lock();
        state.copying.remove(&record);
        state.asked.remove(&record);
        let last = state.copying.is_empty();
        drop(state);
        if last {
            self.spool.clear();
        }
    }

    /// Copies from one holder, unless this node is one, compares with as many more that any w of the old list include one
    /// that was met, and records the move as complete.
    async fn pull(&self, record: MoveRecord, mut places: Places) -> Result<(), PullError> {
        let (installed, me, mut holders) = self.is_wanted(record).ok_or(PullError::Unwanted)?;
        let w = installed.view.ring().quorums.of_list(holders.len()).1;
        let is_gone = |&&holder: &&MemberIndex| installed.view.member(holder).is_some_and(|member| member.gone);
        let gone = holders.iter().filter(is_gone).count();
        let mut need = holders_to_meet(holders.len(), w, gone);
        let stays = holders.contains(&me);
        if stays {
            // One of the old list itself, and it has its data.
            holders.retain(|&holder| holder != me);
            need = need.saturating_sub(1);
        }
        if need == 0 && !stays {
            tracing::error!(
                partition = record.partition,
                "every holder has lost its data; the partition begins anew"
            );
        }
        // Different partitions and different newcomers begin with different holders.
        let turn = (record.partition as usize + usize::from(me.0)) % holders.len().max(1);
        holders.rotate_left(turn);
        holders.sort_by_key(|&holder| {
            let up = self.peers.by_index(holder).is_some_and(|peer| peer.is_up());
            (!up, self.pace.is_busy(holder))
        });
        let (mut met, mut why) = (0, String::from("none was asked"));
        for holder in holders {
            if met == need {
                break;
            }
            self.state.lock().asked.insert(record, holder);
            let outcome = if !stays && met == 0 {
                self.copy(record, &installed, holder, &mut places).await
            } else if !stays && planted::is("pull-without-comparison") {
                Ok(())
            } else {
                self.compare(record, &installed, holder).await
            };
            match outcome {
                Ok(()) => met += 1,
                Err(PullError::Compare { error: CompareError::Fetch(error), .. }) => {
                    let name = installed.view.member(holder).map_or("?", |member| member.name.as_str());
                    why = format!("{name}: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        if met < need {
            return Err(PullError::TooFewHolders { partition: record.partition, met, need, why });
        }
        self.is_wanted(record).ok_or(PullError::Unwanted)?;
        self.complete(record).await
    }

    async fn complete(&self, record: MoveRecord) -> Result<(), PullError> {
        self.state.lock().recorded.insert(record);
        if planted::is("synced-before-sync") {
            self.state.lock().synced.insert(record);
        }
        let stored = self.record(vec![record.put_synced()]).await;
        let fail = |error| PullError::Compare { partition: record.partition, error: CompareError::Storage(error) };
        stored.map_err(fail)?;
        let mut state = self.state.lock();
        state.synced.insert(record);
        state.progress = Some(Instant::now());
        Ok(())
    }

    /// Forgets moves that the ring in force no longer names. One that is under way may yet write something down.
    async fn forget_unwanted(&self, wanted: &BTreeSet<MoveRecord>) {
        let unwanted: Vec<MoveRecord> = {
            let state = self.state.lock();
            let goes_on = |record: &MoveRecord| wanted.contains(record) || state.copying.contains(record);
            state.recorded.iter().filter(|record| !goes_on(record)).copied().collect()
        };
        if unwanted.is_empty() {
            return;
        }
        let changes: Vec<Change> = unwanted.iter().flat_map(|record| record.forget()).collect();
        if let Err(error) = self.record(changes).await {
            tracing::debug!(%error, "records of past moves stay for now");
            return;
        }
        let mut state = self.state.lock();
        for record in unwanted {
            state.synced.remove(&record);
            state.recorded.remove(&record);
        }
    }

    async fn record(&self, changes: Vec<Change>) -> Result<(), crate::storage::StorageError> {
        let reservation = self.replica.committer().reserve_control().await;
        self.replica.committer().submit(changes, reservation).await
    }
}
