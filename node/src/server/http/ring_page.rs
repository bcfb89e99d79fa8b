//! The ring as a page: what it shows, as JSON, and the page that draws it.

use crate::coordinator::Overview;
use dynamo::preference::MemberIndex;
use dynamo::ring::{MemberState, Phase, RingView};
use serde::Serialize;

/// The page; it asks for the ring every two seconds.
pub(super) fn html() -> axum::response::Html<&'static str> {
    axum::response::Html(include_str!("ring.html"))
}

/// What the page draws.
#[derive(Debug, Serialize)]
pub(super) struct RingPage {
    epoch: u64,
    cluster: Option<String>,
    quorums: Option<[u8; 3]>,
    members: Vec<MemberRow>,
    /// For each partition the place of its owner in `members`.
    owners: Vec<usize>,
    /// Partitions that move: number, phase, and places of the members of the other list.
    moving: Vec<(usize, &'static str, Vec<usize>)>,
    node: NodeRow,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    name: String,
    address: String,
    zone: String,
    state: &'static str,
    reachable: bool,
    this: bool,
    owned: usize,
    held: usize,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    name: String,
    incarnation: String,
    ready: bool,
    keys: u64,
    bytes: u64,
    hints: u64,
    hint_bytes: u64,
    copying: u32,
    moved_bytes: u64,
    disk_free: u64,
    disk_total: u64,
}

/// The ring as this node sees it.
pub(super) fn describe(view: Option<&RingView>, overview: &Overview) -> RingPage {
    let node = NodeRow {
        name: overview.name.clone(),
        incarnation: overview.incarnation.to_string(),
        ready: overview.ready,
        keys: overview.keys,
        bytes: overview.bytes,
        hints: overview.hints,
        hint_bytes: overview.hint_bytes,
        copying: overview.copying_partitions,
        moved_bytes: overview.moved_bytes,
        disk_free: overview.disk_bytes_free,
        disk_total: overview.disk_bytes_total,
    };
    let Some(view) = view else {
        return RingPage {
            epoch: 0,
            cluster: None,
            quorums: None,
            members: Vec::new(),
            owners: Vec::new(),
            moving: Vec::new(),
            node,
        };
    };
    let ring = view.ring();
    let owners = ring.owners();
    let place = |index: MemberIndex| ring.members.binary_search_by_key(&index, |member| member.index).unwrap_or(0);
    let row = |member: &dynamo::ring::Member| MemberRow {
        name: member.name.clone(),
        address: member.client_address.clone(),
        zone: member.zone.clone().unwrap_or_default(),
        state: match member.state {
            MemberState::Joining => "joining",
            MemberState::Active => "active",
            MemberState::Leaving => "leaving",
        },
        reachable: !overview.unreachable.contains(&member.name),
        this: member.incarnation == overview.incarnation,
        owned: owners.iter().filter(|&&owner| owner == member.index).count(),
        held: ring.listed(member.index),
    };
    let moving = ring.partitions.iter().enumerate().filter_map(|(partition, placement)| {
        let also = placement.also.as_ref()?;
        let phase = match also.phase {
            Phase::Filling => "filling",
            Phase::Retiring => "retiring",
        };
        Some((partition, phase, also.list.iter().map(|&index| place(index)).collect()))
    });
    RingPage {
        epoch: ring.epoch,
        cluster: Some(ring.cluster.to_string()),
        quorums: Some([ring.quorums.n, ring.quorums.r, ring.quorums.w]),
        members: ring.members.iter().map(row).collect(),
        moving: moving.collect(),
        owners: owners.into_iter().map(place).collect(),
        node,
    }
}
