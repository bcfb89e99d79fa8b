//! Why something waits. Each reason reaches the user: in a condition, in `status.waiting` and in the log.

use dynamo::moves;

/// One thing that waits, and for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `spec.paused`.
    Paused,
    /// The node of a pod has not answered yet, or there is no pod yet.
    NoAnswer {
        /// The pod.
        pod: String,
        /// What was tried and failed.
        why: String,
    },
    /// A newcomer has not answered, so no newcomer is planned for yet.
    JoinerSilent {
        /// The pod.
        pod: String,
    },
    /// The failure domain of a newcomer is not known.
    ZoneUnknown {
        /// The pod.
        pod: String,
    },
    /// The volume of a pod holds the data of another cluster.
    ForeignData {
        /// The pod.
        pod: String,
        /// UID of that cluster.
        cluster: uuid::Uuid,
    },
    /// A newcomer still drops what it kept from an earlier membership.
    JoinerDrops {
        /// The pod.
        pod: String,
        /// Partitions it still holds.
        partitions: u32,
    },
    /// A pod answers with the identity of another member's volume.
    VolumesSwapped {
        /// The pod.
        pod: String,
        /// The member whose volume it is.
        member: String,
    },
    /// Without its `ConfigMap`, the ring can only be restored when this member has been asked.
    RestoreNeeds {
        /// The member.
        member: String,
    },
    /// This cluster has had a ring, and nobody holds it any more.
    RingLost {
        /// Its epoch, as far as known.
        epoch: u64,
    },
    /// The `ConfigMap` is damaged, and nobody holds a ring.
    RingDamaged {
        /// Why it cannot be used.
        why: String,
    },
    /// A volume that no pod answers for may hold a ring, so none is made.
    VolumeMayHoldRing {
        /// The volume claim.
        volume: String,
    },
    /// The last document was published less than a second ago.
    Pacing,
    /// There are too few members yet for the wanted n.
    TooFewForFactor {
        /// Members there are.
        members: usize,
        /// Wanted n.
        n: u8,
    },
    /// No plan of moves.
    Move(moves::Reason),
    /// The wish cannot be planned for.
    Unplannable {
        /// Why.
        why: String,
    },
    /// A leaving member is not yet proven to be dispensable.
    NoProof {
        /// The pod.
        pod: String,
        /// What is missing.
        why: NoProof,
    },
    /// A member does not answer at the ring's epoch, so it might still send hints to those who leave.
    ScaleInNeeds {
        /// The member.
        member: String,
    },
    /// A pod that was let go is still there.
    Stopping {
        /// The pod.
        pod: String,
    },
    /// A volume that is deleted is still there.
    VolumeDeleting {
        /// The volume claim.
        volume: String,
    },
    /// What is wanted does not fit on the disk of a member that would receive data.
    DiskTooSmall {
        /// The pod.
        pod: String,
        /// Bytes that would land there.
        needed: u64,
        /// Bytes that it can take.
        room: u64,
    },
    /// No Node can ever reach a volume again; it is given up in a while.
    VolumeStranded {
        /// The pod.
        pod: String,
        /// The volume claim.
        volume: String,
        /// Why.
        why: String,
        /// Until it is given up.
        seconds_left: u64,
    },
    /// A volume that can never be reached again may hold the last copy of something.
    LastCopy {
        /// The pod.
        pod: String,
        /// Partitions of which no other holder answers.
        partitions: usize,
    },
    /// A pod has to be restarted, and something must come first.
    RolloutNeeds {
        /// What.
        why: String,
    },
}

/// What is missing from the proof that a leaving member is dispensable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoProof {
    /// Its node does not answer.
    NoAnswer,
    /// Another incarnation answers in its place.
    OtherIncarnation,
    /// It belongs to another cluster, or to none.
    OtherCluster,
    /// It has another epoch than the published ring.
    Epoch {
        /// Epoch it has.
        has: u64,
        /// Epoch of the published ring.
        wants: u64,
    },
    /// It is still in lists.
    Listed {
        /// In how many.
        partitions: usize,
    },
    /// It still holds writes for others.
    Hints {
        /// How many.
        hints: u64,
    },
    /// It still holds partitions that it has to drop.
    Leftover {
        /// How many.
        partitions: u32,
    },
}

impl Reason {
    /// One word for conditions and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Paused => "Paused",
            Self::NoAnswer { .. } => "NodeSilent",
            Self::JoinerSilent { .. } => "JoinerSilent",
            Self::ZoneUnknown { .. } => "ZoneUnknown",
            Self::ForeignData { .. } => "ForeignData",
            Self::JoinerDrops { .. } => "JoinerDrops",
            Self::VolumesSwapped { .. } => "VolumesSwapped",
            Self::RestoreNeeds { .. } => "RestoreNeedsMember",
            Self::RingLost { .. } => "RingLost",
            Self::RingDamaged { .. } => "RingDamaged",
            Self::VolumeMayHoldRing { .. } => "VolumeMayHoldRing",
            Self::Pacing => "Pacing",
            Self::TooFewForFactor { .. } => "TooFewForFactor",
            Self::Move(moves::Reason::Connecting { .. }) => "Connecting",
            Self::Move(moves::Reason::Copying { .. }) => "Copying",
            Self::Move(moves::Reason::Acknowledging { .. }) => "Acknowledging",
            Self::Move(moves::Reason::OldListsUnreachable { .. }) => "OldListsUnreachable",
            Self::Unplannable { .. } => "Unplannable",
            Self::NoProof { .. } => "NoProof",
            Self::ScaleInNeeds { .. } => "ScaleInNeedsMember",
            Self::Stopping { .. } => "Stopping",
            Self::VolumeDeleting { .. } => "VolumeDeleting",
            Self::DiskTooSmall { .. } => "DiskTooSmall",
            Self::VolumeStranded { .. } => "VolumeStranded",
            Self::LastCopy { .. } => "LastCopy",
            Self::RolloutNeeds { .. } => "RolloutWaits",
        }
    }

    /// Whether a user has to do something, for waiting alone will not help.
    #[must_use]
    pub fn needs_help(&self) -> bool {
        matches!(
            self,
            Self::ForeignData { .. }
                | Self::VolumesSwapped { .. }
                | Self::RingLost { .. }
                | Self::RingDamaged { .. }
                | Self::VolumeMayHoldRing { .. }
                | Self::Unplannable { .. }
                | Self::DiskTooSmall { .. }
                | Self::LastCopy { .. }
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paused => write!(f, "spec.paused is set; clear it to let the operator act again"),
            Self::NoAnswer { pod, why } => write!(f, "{pod} does not answer: {why}"),
            Self::JoinerSilent { pod } => write!(f, "{pod} shall join and does not answer yet"),
            Self::ZoneUnknown { pod } => {
                write!(f, "{pod} shall join and its host has no zone; label the host with spec.zones.topologyKey")
            }
            Self::ForeignData { pod, cluster } => write!(
                f,
                "the volume of {pod} holds data of another cluster ({cluster}); delete its volume claim and pod to let {pod} begin anew"
            ),
            Self::JoinerDrops { pod, partitions } => {
                write!(f, "{pod} shall join and still drops {partitions} partitions of an earlier membership")
            }
            Self::VolumesSwapped { pod, member } => {
                write!(f, "{pod} runs on the volume of {member}; give each pod its own volume again")
            }
            Self::RestoreNeeds { member } => write!(
                f,
                "the ring's ConfigMap is lost and is restored once {member} answers, for it may hold a newer ring"
            ),
            Self::RingLost { epoch } => write!(
                f,
                "this cluster had a ring (epoch {epoch}) and no node holds it; restore the ring's ConfigMap or the volumes from a backup, or delete this resource to begin anew"
            ),
            Self::RingDamaged { why } => write!(
                f,
                "the ring's ConfigMap is damaged ({why}) and no node holds a ring; delete the ConfigMap to have a first ring made"
            ),
            Self::VolumeMayHoldRing { volume } => {
                write!(
                    f,
                    "volume claim {volume} may hold a ring of this cluster and no pod answers for it; delete the claim if it is of no use"
                )
            }
            Self::Pacing => write!(f, "the last ring was published less than a second ago"),
            Self::TooFewForFactor { members, n } => {
                write!(f, "n = {n} needs as many members and there are {members} yet")
            }
            Self::Move(reason) => reason.fmt(f),
            Self::Unplannable { why } => write!(f, "no ring can be planned: {why}"),
            Self::NoProof { pod, why } => write!(f, "{pod} is not let go yet: {why}"),
            Self::ScaleInNeeds { member } => write!(
                f,
                "no pod is let go while {member} does not answer at the published epoch, for it may still send hints to the leaving"
            ),
            Self::Stopping { pod } => write!(f, "{pod} is stopping"),
            Self::VolumeDeleting { volume } => write!(f, "volume claim {volume} is being deleted"),
            Self::DiskTooSmall { pod, needed, room } => write!(
                f,
                "{needed} bytes would land on {pod}, which has room for {room}; raise spec.storage.size, or keep more replicas"
            ),
            Self::VolumeStranded { pod, volume, why, seconds_left } => {
                write!(
                    f,
                    "volume claim {volume} of {pod} is out of reach: {why}; it is given up in {seconds_left} s"
                )
            }
            Self::LastCopy { pod, partitions } => write!(
                f,
                "the volume of {pod} is out of reach and is not given up, for no other holder of {partitions} of its partitions answers; bring back a holder, or the volume"
            ),
            Self::RolloutNeeds { why } => write!(f, "the rolling restart waits: {why}"),
        }
    }
}

impl std::fmt::Display for NoProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer => write!(f, "its node does not answer"),
            Self::OtherIncarnation => write!(f, "another volume answers in its place"),
            Self::OtherCluster => write!(f, "its node does not belong to this cluster"),
            Self::Epoch { has, wants } => write!(f, "it is at ring epoch {has}, not {wants}"),
            Self::Listed { partitions } => {
                write!(f, "it is still listed for {partitions} partitions")
            }
            Self::Hints { hints } => write!(f, "it still owes {hints} hints"),
            Self::Leftover { partitions } => write!(f, "it still drops {partitions} partitions"),
        }
    }
}
