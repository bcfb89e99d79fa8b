//! The ring document as text: JSON that a person can read in a `ConfigMap`, and small enough to be sent around.
//!
//! A partition is one string: `"0 1 2 @9"` for one that is settled since epoch 9, `"0 1 2 > 3 1 2 @17"` while list
//! `3 1 2` fills, since epoch 17, `"3 1 2 < 0 1 2 @19"` while list `0 1 2` retires. Where the epoch is missing it is
//! the document's own, which is always safe. Q = 1024 with n = 3 stays under 64 KiB.

use super::{Also, Member, MemberState, Phase, Placement, Quorums, Ring, Target};
use crate::preference::MemberIndex;
use crate::token::{HashKey, PartitionCount};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a ring document. Nothing of the text was used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The text is not JSON of the right shape.
    #[error("the ring document is not readable: {0}")]
    Json(#[from] serde_json::Error),
    /// The number of partitions is not a power of two between 16 and 16384.
    #[error("the ring document has {0} partitions; it must be a power of two between 16 and 16384")]
    PartitionCount(usize),
    /// A list could not be read.
    #[error("partition {partition} of the ring document is not readable: {text:?}")]
    Placement {
        /// Which partition.
        partition: usize,
        /// What stood there.
        text: String,
    },
    /// A list names a member that is not among the members, or names one twice.
    #[error("partition {partition} of the ring document names member {member}, unknown or twice in one list")]
    Member {
        /// Which partition.
        partition: usize,
        /// Which member.
        member: MemberIndex,
    },
    /// Members are not in ascending order of their indices.
    #[error("the members of the ring document are not in ascending order")]
    MemberOrder,
    /// n, r or w is zero, or r or w is above n.
    #[error("the quorums n={n}, r={r}, w={w} cannot work: 1 ≤ r ≤ n and 1 ≤ w ≤ n")]
    Quorums {
        /// Replication factor.
        n: u8,
        /// Read quorum.
        r: u8,
        /// Write quorum.
        w: u8,
    },
    /// The target does not name one known owner for each partition.
    #[error("the target of the ring document does not fit its partitions and members")]
    Target,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    cluster: Uuid,
    epoch: u64,
    n: u8,
    r: u8,
    w: u8,
    sloppy: bool,
    hash_key: HashKey,
    members: Vec<TextMember>,
    partitions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TextTarget>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextMember {
    index: MemberIndex,
    incarnation: Uuid,
    name: String,
    peer: String,
    client: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u32,
    state: TextState,
    #[serde(default, skip_serializing_if = "is_false")]
    gone: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TextState {
    Joining,
    Active,
    Leaving,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextTarget {
    owners: String,
    since: u64,
    replica_moves: u32,
    replica_moves_min: u32,
}

/// The document as JSON.
#[must_use]
pub fn to_json(ring: &Ring) -> String {
    let text = Text {
        cluster: ring.cluster,
        epoch: ring.epoch,
        n: ring.quorums.n,
        r: ring.quorums.r,
        w: ring.quorums.w,
        sloppy: ring.quorums.sloppy,
        hash_key: ring.hash_key,
        members: ring.members.iter().map(member_to_text).collect(),
        partitions: ring.partitions.iter().map(placement_to_text).collect(),
        target: ring.target.as_ref().map(|target| TextTarget {
            owners: list_to_text(&target.owners),
            since: target.since,
            replica_moves: target.replica_moves,
            replica_moves_min: target.replica_moves_min,
        }),
    };
    // Only maps with non-text keys and failing writers can make this fail; there are none here.
    serde_json::to_string(&text).unwrap_or_default()
}

/// Reads and checks a document.
///
/// # Errors
/// [`DocumentError`] when the text is not a document that a node could serve by.
pub fn from_json(json: &[u8]) -> Result<Ring, DocumentError> {
    let text: Text = serde_json::from_slice(json)?;
    let count = u32::try_from(text.partitions.len()).ok().and_then(|count| PartitionCount::new(count).ok());
    if count.is_none() {
        return Err(DocumentError::PartitionCount(text.partitions.len()));
    }
    let (n, r, w) = (text.n, text.r, text.w);
    if n == 0 || r == 0 || w == 0 || r > n || w > n {
        return Err(DocumentError::Quorums { n, r, w });
    }
    let members: Vec<Member> = text.members.into_iter().map(member_from_text).collect();
    if !members.is_sorted_by(|a, b| a.index < b.index) {
        return Err(DocumentError::MemberOrder);
    }
    let known = |index: MemberIndex| members.binary_search_by_key(&index, |member| member.index).is_ok();
    let epoch = text.epoch;
    let mut partitions = Vec::with_capacity(text.partitions.len());
    for (partition, text) in text.partitions.into_iter().enumerate() {
        let Some(placement) = placement_from_text(&text, epoch) else {
            return Err(DocumentError::Placement { partition, text });
        };
        check_list(partition, &placement.preference, &known)?;
        if let Some(also) = &placement.also {
            check_list(partition, &also.list, &known)?;
        }
        partitions.push(placement);
    }
    let target = text.target.map(|target| target_from_text(&target, partitions.len(), &known)).transpose()?;
    let quorums = Quorums { n, r, w, sloppy: text.sloppy };
    let (cluster, hash_key) = (text.cluster, text.hash_key);
    Ok(Ring { cluster, epoch, quorums, hash_key, members, partitions, target })
}

fn check_list(
    partition: usize,
    list: &[MemberIndex],
    known: &dyn Fn(MemberIndex) -> bool,
) -> Result<(), DocumentError> {
    for (at, &member) in list.iter().enumerate() {
        if !known(member) || list[..at].contains(&member) {
            return Err(DocumentError::Member { partition, member });
        }
    }
    Ok(())
}

fn target_from_text(
    text: &TextTarget,
    partitions: usize,
    known: &dyn Fn(MemberIndex) -> bool,
) -> Result<Target, DocumentError> {
    let owners = list_from_text(&text.owners).ok_or(DocumentError::Target)?;
    if owners.len() != partitions || !owners.iter().all(|&owner| known(owner)) {
        return Err(DocumentError::Target);
    }
    let (since, replica_moves, replica_moves_min) = (text.since, text.replica_moves, text.replica_moves_min);
    Ok(Target { owners, since, replica_moves, replica_moves_min })
}

fn member_to_text(member: &Member) -> TextMember {
    TextMember {
        index: member.index,
        incarnation: member.incarnation,
        name: member.name.clone(),
        peer: member.peer_address.clone(),
        client: member.client_address.clone(),
        zone: member.zone.clone(),
        weight: member.weight,
        state: match member.state {
            MemberState::Joining => TextState::Joining,
            MemberState::Active => TextState::Active,
            MemberState::Leaving => TextState::Leaving,
        },
        gone: member.gone,
    }
}

fn member_from_text(text: TextMember) -> Member {
    Member {
        index: text.index,
        incarnation: text.incarnation,
        name: text.name,
        peer_address: text.peer,
        client_address: text.client,
        zone: text.zone,
        weight: text.weight,
        state: match text.state {
            TextState::Joining => MemberState::Joining,
            TextState::Active => MemberState::Active,
            TextState::Leaving => MemberState::Leaving,
        },
        gone: text.gone,
    }
}

fn placement_to_text(placement: &Placement) -> String {
    let (preference, since) = (list_to_text(&placement.preference), placement.since);
    match &placement.also {
        None => format!("{preference} @{since}"),
        Some(also) => {
            let sign = match also.phase {
                Phase::Filling => '>',
                Phase::Retiring => '<',
            };
            format!("{preference} {sign} {} @{since}", list_to_text(&also.list))
        }
    }
}

/// What a partition of the document of `epoch` says.
fn placement_from_text(text: &str, epoch: u64) -> Option<Placement> {
    let (lists, since) = match text.split_once('@') {
        Some((lists, since)) => (lists, since.parse().ok().filter(|since| *since <= epoch)?),
        None => (text, epoch),
    };
    let Some(at) = lists.find(['>', '<']) else {
        return Some(Placement { preference: list_from_text(lists)?, also: None, since });
    };
    let phase = if lists[at..].starts_with('>') { Phase::Filling } else { Phase::Retiring };
    let also = Also { list: list_from_text(&lists[at + 1..])?, phase };
    Some(Placement { preference: list_from_text(&lists[..at])?, also: Some(also), since })
}

fn list_to_text(list: &[MemberIndex]) -> String {
    let mut text = String::with_capacity(list.len() * 3);
    for (at, index) in list.iter().enumerate() {
        if at > 0 {
            text.push(' ');
        }
        text.push_str(&index.0.to_string());
    }
    text
}

fn list_from_text(text: &str) -> Option<Vec<MemberIndex>> {
    let list: Vec<MemberIndex> =
        text.split_ascii_whitespace().map(|number| number.parse().ok().map(MemberIndex)).collect::<Option<_>>()?;
    (!list.is_empty()).then_some(list)
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}
