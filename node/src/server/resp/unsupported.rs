//! Commands that Redis has and Annulus refuses, and why.
//!
//! A command is refused rather than served with a promise that cannot be kept. Every refusal reads
//! `ERR ANNULUS unsupported: 'NAME' REASON`.

/// Why the command of this name, in whatever case, is refused; `None`: Redis does not know it either.
pub(super) fn reason(name: &[u8]) -> Option<&'static str> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let family = FAMILIES.iter().find(|family| family.names.split_whitespace().any(|known| known == name))?;
    Some(family.reason)
}

/// Commands that are refused for one reason.
struct Family {
    names: &'static str,
    reason: &'static str,
}

/// What a command is told that reads one key and writes another.
const MANY_KEYS: &str = "reads and writes several keys in one step; there is no place where all of them could be read \
                         and written at once";

/// What a condition on several keys is told.
pub(super) const TOGETHER: &str = "NX and XX test several keys in one step; there is no place where all of them could be read and written at once";

/// What a script is told.
pub(super) const SCRIPTS: &str =
    "runs a script; there is no single place where all its keys could be read and written at once";

static FAMILIES: &[Family] = &[
    Family { names: "msetnx rename renamenx copy smove sdiffstore sinterstore sunionstore", reason: MANY_KEYS },
    Family {
        names: "bitop pfadd pfmerge",
        reason: "reads and writes in one step, and that is offered for a few commands only: \
                 see SET NX, APPEND, INCRBYFLOAT",
    },
    Family {
        names: "discard exec multi unwatch watch",
        reason: "is part of a transaction; there is no order of commands that all replicas share, \
                 so keys are written each for itself",
    },
    Family {
        names: "blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx \
                lrange lrem lset ltrim rpop rpoplpush rpush rpushx sort sort_ro hexpire hexpireat hexpiretime \
                hgetex hpersist hpexpire hpexpireat hpexpiretime hpttl hsetex httl bzmpop bzpopmax \
                bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount \
                zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank \
                zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore \
                zrevrank zscan zscore zunion zunionstore geoadd geodist geohash geopos georadius georadius_ro \
                georadiusbymember georadiusbymember_ro geosearch geosearchstore xack xackdel xadd xautoclaim \
                xclaim xdel xdelex xgroup xinfo xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim \
                pfcount pfdebug pfselftest vadd vcard vdim vemb vgetattr \
                vinfo vlinks vrandmember vrem vsetattr vsim",
        reason: "works on a type that Annulus does not have: it has strings, counters, sets and hashes",
    },
    Family { names: "eval eval_ro evalsha evalsha_ro fcall fcall_ro", reason: SCRIPTS },
    Family {
        names: "psubscribe publish pubsub punsubscribe spublish ssubscribe subscribe sunsubscribe unsubscribe",
        reason: "is a message and no data; Annulus stores keys and values only",
    },
    Family {
        names: "bgrewriteaof bgsave debug dump failover migrate monitor move psync \
                replconf replicaof restore restore-asking save shutdown slaveof swapdb sync lolwut",
        reason: "belongs to how a Redis server is run; Annulus is run by its operator \
                 and tells about itself in INFO, /metrics and /ui",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::resp::command_table::COMMANDS;

    #[test]
    fn no_command_is_both_served_and_refused() {
        for spec in COMMANDS {
            assert_eq!(reason(spec.name.as_bytes()), None, "{}", spec.name);
        }
        assert_eq!(reason(b"ReName"), Some(MANY_KEYS));
        assert_eq!(reason(b"frobnicate"), None);
    }
}
