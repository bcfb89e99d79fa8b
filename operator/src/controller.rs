//! The control loop, and one round of it: observe, validate, build, plan, apply, report.

use crate::apply::{Applied, ApplyError, FIELD_MANAGER, Hands};
use crate::build::{self, Defaults};
use crate::crd::{KeyValueCluster, KeyValueClusterStatus};
use crate::events;
use crate::metrics::{ClusterLabels, Metrics};
use crate::nodes::NodeClient;
use crate::observe::{ObserveError, Seen, Surroundings, observe};
use crate::plan::{self, Objects, Plan};
use crate::status::{Round, status};
use crate::validate::{Invalid, validate};
use dynamo::token::HashKey;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a round waits for the next while something is under way, unless told otherwise.
const BEAT: Duration = Duration::from_secs(1);
/// How many beats a round that failed waits for the next.
const BEATS_AFTER_ERROR: u32 = 3;
/// For so many beats surroundings are taken for what they were.
const BEATS_OF_SURROUNDINGS: u32 = 5;

/// A round that did not get to its end. The next one starts from what is then observed.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// Something could not be read; nothing was changed.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The planned action was not performed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written; everything else was done.
    #[error("writing the status failed: {0}")]
    Status(#[source] kube::Error),
}

/// What the control loop works with.
pub struct Operator {
    /// Of the API server.
    pub client: Client,
    /// Of the nodes.
    pub nodes: Arc<dyn NodeClient>,
    /// What every cluster gets.
    pub defaults: Defaults,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// How often a cluster is looked at, and its objects are written again, when nothing happens.
    pub resync: Duration,
    /// How long a round waits for the next while something is under way. Also the least time between two epochs; while
    /// clients are there these are several beats apart.
    pub beat: Duration,
    /// The only namespace to look at; `None`: all.
    pub namespace: Option<String>,
    recorder: Recorder,
    memory: Mutex<BTreeMap<String, Memory>>,
}

/// What is remembered of a cluster between rounds, for pace alone: forgetting it does no harm.
#[derive(Clone, Debug, Default)]
struct Memory {
    published: Option<Published>,
    refreshed: Option<Instant>,
    /// When they were read, too.
    surroundings: Option<(Instant, Surroundings)>,
}

/// The epoch that was published last.
#[derive(Clone, Copy, Debug)]
struct Published {
    at: Instant,
    /// Of the resource then.
    generation: Option<i64>,
    /// How many beats are to pass before the next, unless the spec is another.
    spacing: u32,
}

impl Published {
    /// For how long nothing more is to be published towards this generation. A change of the spec waits no longer than
    /// it has to.
    fn rest(&self, generation: Option<i64>, beat: Duration, now: Instant) -> Option<Duration> {
        let spacing = if generation == self.generation { beat * self.spacing } else { beat };
        spacing.checked_sub(now - self.at).filter(|rest| !rest.is_zero())
    }
}

impl Operator {
    /// An operator that has done nothing yet.
    #[must_use]
    pub fn new(client: Client, nodes: Arc<dyn NodeClient>, defaults: Defaults, metrics: Arc<Metrics>) -> Self {
        let recorder = Recorder::new(client.clone(), reporter());
        Self {
            client,
            nodes,
            defaults,
            metrics,
            resync: Duration::from_secs(30),
            beat: BEAT,
            namespace: None,
            recorder,
            memory: Mutex::default(),
        }
    }

    /// Looks after every cluster until `stop` is done; rounds under way come to their end.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
        let clusters = self.api::<KeyValueCluster>();
        let (reader, writer) = reflector::store();
        // A status that was just written is no reason for another round; a change of the spec is.
        let changes = watcher(clusters, watcher::Config::default())
            .default_backoff()
            .reflect(writer)
            .applied_objects()
            .predicate_filter(predicates::generation, PredicateConfig::default());
        let ours = watcher::Config::default().labels(build::CLUSTER);
        let config = controller::Config::default().debounce(self.beat / 10).concurrency(16);
        let rounds = Controller::for_stream(changes, reader)
            .with_config(config)
            .owns(self.api::<StatefulSet>(), ours.clone())
            .owns(self.api::<Service>(), ours.clone())
            .owns(self.api::<ConfigMap>(), ours.clone())
            .owns(self.api::<PodDisruptionBudget>(), ours.clone())
            .watches(self.api::<Pod>(), ours, cluster_of_pod)
            .graceful_shutdown_on(stop)
            .run(reconcile, |_, _, operator| Action::requeue(operator.beat * BEATS_AFTER_ERROR), self.clone());
        rounds
            .for_each(|round| async {
                match round {
                    Ok((cluster, _)) => tracing::trace!(%cluster, "round done"),
                    // Deleted while a round was waiting for its turn.
                    Err(controller::Error::ObjectNotFound(cluster)) => {
                        tracing::debug!(%cluster, "gone")
                    }
                    Err(controller::Error::ReconcilerFailed(error, cluster)) => {
                        tracing::warn!(%cluster, %error, "round failed");
                    }
                    Err(error) => tracing::warn!(%error, "watching failed"),
                }
            })
            .await;
    }

    fn api<T>(&self) -> Api<T>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn remember<T>(&self, cluster: &KeyValueCluster, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(cluster.uid().unwrap_or_default()).or_default())
    }

    /// Tells of something that happens once, each time in its own words.
    async fn tell(&self, cluster: &KeyValueCluster, event: &Event) {
        // A recorder of its own: the shared one would fold this into the last Event of the same reason.
        self.publish(&Recorder::new(self.client.clone(), reporter()), cluster, event).await;
    }

    async fn publish(&self, recorder: &Recorder, cluster: &KeyValueCluster, event: &Event) {
        tracing::info!(cluster = cluster.name_any(), reason = event.reason, note = event.note, "event");
        if let Err(error) = recorder.publish(event, &cluster.object_ref(&())).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }
}

fn reporter() -> Reporter {
    Reporter { controller: FIELD_MANAGER.to_owned(), instance: std::env::var("POD_NAME").ok() }
}

fn cluster_of_pod(pod: Pod) -> Option<ObjectRef<KeyValueCluster>> {
    let name = pod.labels().get(build::CLUSTER)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

fn labels(cluster: &KeyValueCluster) -> ClusterLabels {
    ClusterLabels { namespace: cluster.namespace().unwrap_or_default(), name: cluster.name_any() }
}

async fn reconcile(cached: Arc<KeyValueCluster>, operator: Arc<Operator>) -> Result<Action, RoundError> {
    let started = Instant::now();
    let published = operator.remember(&cached, |memory| memory.published);
    if let Some(rest) = put_off(published, cached.metadata.generation, operator.beat, started) {
        return Ok(Action::requeue(rest));
    }
    let api: Api<KeyValueCluster> =
        Api::namespaced(operator.client.clone(), &cached.namespace().unwrap_or_default());
    let live = api.get_opt(&cached.name_any()).await;
    let live = live.map_err(|source| ObserveError { what: "the KeyValueCluster", source })?;
    let Some(cluster) = live.filter(|live| live.metadata.deletion_timestamp.is_none()) else {
        // Whatever it owns goes with it, by its owner references.
        operator.metrics.forget(&labels(&cached));
        let mut memory = operator.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(&cached.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    let result = round(&operator, &cluster).await;
    operator.metrics.round(&labels(&cluster), started.elapsed(), result.is_err());
    result
}

/// One round.
async fn round(operator: &Operator, cluster: &KeyValueCluster) -> Result<Action, RoundError> {
    let earlier = surroundings(operator, cluster);
    let mut seen = observe(&operator.client, &*operator.nodes, cluster, earlier.as_ref()).await?;
    if earlier.is_none() {
        let read = (Instant::now(), seen.surroundings.clone());
        operator.remember(cluster, |memory| memory.surroundings = Some(read));
    }
    let desired = validate(cluster, operator.defaults.node_image.as_deref());
    let built = build::build(cluster, &operator.defaults, seen.claim_size().as_ref());
    seen.compare(&built);
    pace(operator, cluster, &mut seen);
    let plan = match &desired {
        Ok(desired) => plan::plan(desired, &seen.observed, HashKey(rand::random())),
        Err(_) => Plan::default(),
    };
    let hands = Hands { client: &operator.client, nodes: &*operator.nodes, cluster, seen: &seen, built: &built };
    let applied = match desired.as_ref().is_ok_and(|desired| !desired.paused) {
        true => hands.apply(&plan).await,
        false => Ok(Applied::default()),
    };
    if let (Ok(applied), Some(action)) = (&applied, &plan.action) {
        note(operator, cluster, &seen, action, applied).await;
    }
    report(operator, cluster, &seen, &plan, desired.as_ref().err(), &applied).await?;
    applied?;
    let busy = plan.action.is_some() || plan.waiting.iter().any(|reason| *reason != plan::Reason::Paused);
    Ok(Action::requeue(pause(operator.beat, operator.resync, busy, earlier.is_some())))
}

/// For how long a round towards this generation of the resource is put off, since it could not publish. What brings a round
/// about right after an epoch is as a rule the epoch's own writing, which the API server tells of as of any other: it would
/// read everything once more, in the very moment in which all nodes take up the ring. A change of the spec is looked at at
/// once.
fn put_off(
    published: Option<Published>,
    generation: Option<i64>,
    beat: Duration,
    now: Instant,
) -> Option<Duration> {
    published.filter(|last| last.generation == generation)?.rest(generation, beat, now)
}

/// How long a round waits for the next. `earlier`: whether it went by surroundings that were read before.
fn pause(beat: Duration, resync: Duration, busy: bool, earlier: bool) -> Duration {
    match busy {
        true => beat,
        // What brought the round about may be a change to those.
        false if earlier => (beat * BEATS_OF_SURROUNDINGS).min(resync),
        false => resync,
    }
}

/// What was read of them, if that was not long ago.
fn surroundings(operator: &Operator, cluster: &KeyValueCluster) -> Option<Surroundings> {
    let (read, surroundings) = operator.remember(cluster, |memory| memory.surroundings.clone())?;
    (read.elapsed() < operator.beat * BEATS_OF_SURROUNDINGS).then_some(surroundings)
}

/// Fills in what only the clock knows: whether an epoch was published just now, and whether objects are due to be
/// written again, which undoes what somebody else has changed in them.
fn pace(operator: &Operator, cluster: &KeyValueCluster, seen: &mut Seen) {
    let (published, refreshed) = operator.remember(cluster, |memory| (memory.published, memory.refreshed));
    let rest = published.and_then(|last| last.rest(cluster.metadata.generation, operator.beat, Instant::now()));
    seen.observed.published_just_now = rest.is_some();
    let due = refreshed.is_none_or(|at| at.elapsed() >= operator.resync);
    if due && seen.observed.objects == Objects::Current {
        seen.observed.objects = Objects::Due;
    }
}

/// Remembers and tells what was done.
async fn note(
    operator: &Operator,
    cluster: &KeyValueCluster,
    seen: &Seen,
    action: &plan::Action,
    applied: &Applied,
) {
    let now = Instant::now();
    let published = applied.ring.is_some().then(|| Published {
        at: now,
        generation: cluster.metadata.generation,
        spacing: plan::spacing(&seen.observed),
    });
    operator.remember(cluster, |memory| {
        memory.published = published.or(memory.published);
        if matches!(action, plan::Action::ApplyObjects { .. }) {
            memory.refreshed = Some(now);
            memory.surroundings = None;
        }
    });
    tracing::debug!(cluster = cluster.name_any(), action = action.code(), "did");
    for event in events::of_action(action, &seen.observed, &cluster.name_any()) {
        operator.tell(cluster, &event).await;
    }
}

/// Writes the status, if it is another than before, and tells of what only a person can mend.
async fn report(
    operator: &Operator,
    cluster: &KeyValueCluster,
    seen: &Seen,
    plan: &Plan,
    invalid: Option<&Invalid>,
    applied: &Result<Applied, ApplyError>,
) -> Result<(), RoundError> {
    let failed = applied.as_ref().err().map(ToString::to_string);
    let published = applied.as_ref().ok().and_then(|applied| applied.ring.as_deref());
    let now = status(&Round {
        cluster,
        observed: &seen.observed,
        invalid,
        plan,
        failed: failed.as_deref(),
        ring: published.or(seen.observed.ring()),
        now: Timestamp::now(),
    });
    operator.metrics.found(&labels(cluster), &now, &plan.waiting);
    for event in news(cluster, plan, invalid) {
        operator.publish(&operator.recorder, cluster, &event).await;
    }
    if cluster.status.as_ref() == Some(&now) {
        return Ok(());
    }
    write_status(operator, cluster, &now).await.map_err(RoundError::Status)
}

/// What only a person can mend, as far as the last status does not say it already.
fn news(cluster: &KeyValueCluster, plan: &Plan, invalid: Option<&Invalid>) -> Vec<Event> {
    let before = cluster.status.clone().unwrap_or_default();
    let refused = invalid.map(ToString::to_string);
    let known = |note: &String| before.conditions.iter().any(|condition| condition.message == *note);
    let refused = refused.filter(|note| !known(note)).map(|note| events::blocked("SpecRefused", note));
    let helpless = plan.waiting.iter().filter(|reason| reason.needs_help());
    let helpless = helpless.map(|reason| (reason.code(), reason.to_string()));
    let helpless = helpless.filter(|(_, note)| !before.waiting.contains(note));
    refused.into_iter().chain(helpless.map(|(code, note)| events::blocked(code, note))).collect()
}

async fn write_status(
    operator: &Operator,
    cluster: &KeyValueCluster,
    status: &KeyValueClusterStatus,
) -> Result<(), kube::Error> {
    let api: Api<KeyValueCluster> =
        Api::namespaced(operator.client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = serde_json::json!({
        "apiVersion": KeyValueCluster::api_version(&()),
        "kind": KeyValueCluster::kind(&()),
        "metadata": {"name": cluster.name_any(), "uid": cluster.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&cluster.name_any(), &parameters, &Patch::Apply(patch)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_just_published_puts_the_next_round_off_unless_the_spec_is_another() {
        let (beat, now) = (BEAT, Instant::now());
        let ago =
            |ago, spacing| Some(Published { at: now.checked_sub(ago).unwrap(), generation: Some(3), spacing });
        let same = |published| put_off(published, Some(3), beat, now);
        assert_eq!(same(None), None, "none was published");
        assert_eq!(same(ago(beat / 10, 1)), Some(beat * 9 / 10));
        assert_eq!(same(ago(beat, 1)), None);
        assert_eq!(same(ago(beat * 2, 1)), None);
        assert_eq!(same(ago(beat * 2, 3)), Some(beat), "clients are there");
        assert_eq!(same(ago(beat * 3, 3)), None);
        let other = |published: Option<Published>| {
            assert_eq!(put_off(published, Some(4), beat, now), None, "it is looked at");
            published.unwrap().rest(Some(4), beat, now)
        };
        assert_eq!(other(ago(beat / 10, 3)), Some(beat * 9 / 10), "but all nodes have just taken up a ring");
        assert_eq!(other(ago(beat, 3)), None);
    }

    #[test]
    fn a_round_that_has_not_looked_around_is_followed_by_one_that_does() {
        let (beat, resync) = (BEAT, Duration::from_secs(30));
        assert_eq!(pause(beat, resync, true, true), beat);
        assert_eq!(pause(beat, resync, false, false), resync);
        let next = pause(beat, resync, false, true);
        assert!(next >= beat * BEATS_OF_SURROUNDINGS, "what was read is too old by then");
        assert!(next < resync);
    }
}
