//! A node of the simulated cluster: the real one, over turmoil's sockets and a simulated disk.

use crate::scenario::Scenario;
use crate::shared::Shared;
use crate::wire;
use annulus_node::config::Limits;
use annulus_node::handoff::Spool;
use annulus_node::node::{self, Identity, Listeners, Resources};
use annulus_node::storage::{Births, Committer, Engine};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Port for Redis clients.
pub const RESP_PORT: u16 = 6379;
/// Port for gRPC clients.
pub const GRPC_PORT: u16 = 7379;
/// Port for the other nodes and the operator.
pub const PEER_PORT: u16 = 7400;

/// Host name of a slot.
#[must_use]
pub fn name(slot: usize) -> String {
    format!("n{slot}")
}

/// Runs the node of a slot until it is told to end, or its host crashes.
///
/// # Errors
/// When the node could not start. One whose storage broke ends without error, to be started again.
pub async fn run(shared: Arc<Shared>, slot: usize) -> turmoil::Result {
    if !shared.slots.lock()[slot].on {
        return Ok(());
    }
    let volume = shared.volume_at_start(slot);
    let shutdown = CancellationToken::new();
    {
        let mut slots = shared.slots.lock();
        slots[slot].shutdown = Some(shutdown.clone());
        slots[slot].starts += 1;
    }
    let engine: Arc<dyn Engine> = volume.disk.clone();
    let limits = limits(&shared.scenario);
    let overlays = node::overlays();
    let committer = {
        let overlays = overlays.clone();
        Committer::inline(engine.clone(), &limits, shared.scenario.commit_time, move |changes, stored| {
            overlays.data.committed(changes, stored.is_ok());
            overlays.hints.committed(changes, stored.is_ok());
        })
    };
    let random = u32::try_from(shared.random() & u128::from(u32::MAX)).unwrap_or(0);
    let births = match Births::open(engine.clone(), random) {
        Ok(births) => births,
        Err(error) => {
            // As the real process does: it ends, and is started again.
            shared.trace.say(|| format!("{} cannot start: {error}", name(slot)));
            return Ok(());
        }
    };
    let spool = Spool::in_memory(volume.disk.spool(), volume.incarnation);
    let wall = {
        let shared = shared.clone();
        Arc::new(move || shared.wall_ms(slot))
    };
    let resources = Resources { engine, committer, overlays, births, wall, spool };
    let identity = Identity { cluster: shared.cluster, incarnation: volume.incarnation, name: name(slot) };
    let host = slot as u64;
    let listeners = Listeners {
        resp: wire::incoming(&shared, host, RESP_PORT).await?,
        grpc: wire::incoming(&shared, host, GRPC_PORT).await?,
        peer: wire::incoming(&shared, host, PEER_PORT).await?,
        // The pages for people and Prometheus are tested elsewhere.
        http: Box::pin(futures::stream::pending()),
    };
    let connector = wire::connector(&shared, host);
    let ended = node::run(identity, limits, listeners, connector, resources, None, shutdown).await;
    shared.trace.say(|| format!("{} has ended: {ended:?}", name(slot)));
    Ok(())
}

fn limits(scenario: &Scenario) -> Limits {
    Limits {
        request_timeout: Duration::from_secs(2),
        replica_timeout: Duration::from_millis(500),
        disk_reserve_bytes: 1 << 20,
        hint_pause: scenario.hint_pause,
        collect_pause: scenario.collect_pause,
        pull_bytes_under_way_min: scenario.pull_bytes_under_way_min,
        ..Limits::default()
    }
}
