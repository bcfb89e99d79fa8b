//! What a node is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

/// Bounds of everything that could grow. Every queue, buffer and request of a node is under one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, in bytes.
    pub key_bytes_max: usize,
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Largest set or hash, in bytes of its object, which is written as a whole with each change.
    pub collection_bytes_max: usize,
    /// Most concurrent values of one key.
    pub siblings_max: usize,
    /// Most client connections of the RESP port.
    pub connections_max: usize,
    /// Most bytes of requests read and not yet answered, for one RESP connection.
    pub connection_request_bytes_max: usize,
    /// Most bytes of replies not yet taken by one RESP connection's client.
    pub connection_reply_bytes_max: usize,
    /// Most bytes that all RESP connections hold together: requests, replies and what was read and not yet looked at.
    pub client_bytes_max: usize,
    /// How long a RESP client may take to say who it is, to end a request it has begun, or to take replies; 16 KiB that
    /// it sends or takes begin it anew.
    pub stalled_client_timeout: Duration,
    /// Most arguments of one RESP command.
    pub command_arguments_max: usize,
    /// Most bytes of writes waiting for the committer.
    pub commit_queue_bytes_max: usize,
    /// Memory for objects read or written of late, in bytes.
    pub object_cache_bytes_max: usize,
    /// Most bytes queued for one peer.
    pub peer_queue_bytes_max: usize,
    /// Most requests queued for or unanswered by one peer.
    pub peer_requests_max: usize,
    /// Most bytes of hints held for other members.
    pub hint_bytes_max: u64,
    /// Writes are refused when the disk has less than this left, in bytes.
    pub disk_reserve_bytes: u64,
    /// Partitions copied to this node at once; half of it beside clients.
    pub parallel_pulls_max: usize,
    /// Of what moves copy to this node, so many bytes may be on their way at once, however little that is in all. What is
    /// on its way is sent again if the node dies.
    pub pull_bytes_under_way_min: u64,
    /// Bytes a second copied to this node by moves; `None`: as fast as it goes.
    pub transfer_bytes_per_second_max: Option<u64>,
    /// Pause between two looks at whose hints are to be delivered.
    pub hint_pause: Duration,
    /// Pause between two rounds of anti-entropy.
    pub repair_pause: Duration,
    /// Bytes a second exchanged by anti-entropy, in both directions, for what this node begins.
    pub repair_bytes_per_second_max: u64,
    /// Least pause between two rounds of collecting what is dead; longer after those that took long.
    pub collect_pause: Duration,
    /// How long a client's request may take before it is answered with an error.
    pub request_timeout: Duration,
    /// How long one replica may take before another is asked in its place.
    pub replica_timeout: Duration,
    /// Who may do what over RESP.
    pub redis: RedisSettings,
}

/// Settings of the RESP port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisSettings {
    /// File of the users who may connect, in the format of a Redis ACL file; `None`: everyone may do everything.
    pub acl_file: Option<PathBuf>,
    /// Whether FLUSHALL and FLUSHDB delete all keys they find, rather than being refused.
    pub flush_allowed: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The engine takes keys below 64 KiB; a hint's has 24 bytes more than the key it is for.
            key_bytes_max: (64 << 10) - 1 - 24,
            value_bytes_max: 8 << 20,
            collection_bytes_max: 1 << 20,
            siblings_max: 100,
            connections_max: 10_000,
            connection_request_bytes_max: 32 << 20,
            connection_reply_bytes_max: 32 << 20,
            client_bytes_max: 512 << 20,
            stalled_client_timeout: Duration::from_secs(60),
            command_arguments_max: 1 << 20,
            commit_queue_bytes_max: 64 << 20,
            object_cache_bytes_max: 128 << 20,
            peer_queue_bytes_max: 64 << 20,
            peer_requests_max: 64 << 10,
            hint_bytes_max: 1 << 30,
            disk_reserve_bytes: 256 << 20,
            parallel_pulls_max: 16,
            pull_bytes_under_way_min: 512 << 10,
            transfer_bytes_per_second_max: None,
            hint_pause: Duration::from_millis(500),
            repair_pause: Duration::from_secs(2),
            repair_bytes_per_second_max: 32 << 20,
            collect_pause: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            replica_timeout: Duration::from_secs(1),
            redis: RedisSettings::default(),
        }
    }
}
