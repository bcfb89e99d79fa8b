//! Subcommands of the commands that have any.

/// Subcommands of one command.
struct Family {
    command: &'static str,
    served: &'static str,
    /// Redis has them, and rules about users may name them.
    refused: &'static str,
}

static FAMILIES: &[Family] = &[
    Family {
        command: "acl",
        served: "cat dryrun genpass getuser help list users whoami",
        refused: "deluser load log save setuser",
    },
    Family { command: "annulus", served: "consistency get ring where", refused: "" },
    Family {
        command: "client",
        served: "caching getname getredir help id info kill list no-evict no-touch reply setinfo setname tracking \
                 trackinginfo unblock unpause",
        refused: "pause",
    },
    Family {
        command: "cluster",
        served: "countkeysinslot getkeysinslot help info keyslot myid myshardid nodes replicas shards slaves slots",
        refused: "addslots addslotsrange bumpepoch count-failure-reports delslots delslotsrange failover flushslots \
                  forget links meet replicate reset saveconfig set-config-epoch setslot slot-stats",
    },
    Family { command: "command", served: "count docs getkeys getkeysandflags help info list", refused: "" },
    Family { command: "config", served: "get help resetstat set", refused: "rewrite" },
    Family { command: "function", served: "flush help list", refused: "delete dump kill load restore stats" },
    Family { command: "latency", served: "help histogram history latest reset", refused: "doctor graph" },
    Family { command: "memory", served: "help usage", refused: "doctor malloc-stats purge stats" },
    Family { command: "module", served: "list", refused: "help load loadex unload" },
    Family { command: "object", served: "encoding freq help refcount", refused: "idletime" },
    Family { command: "script", served: "exists flush", refused: "debug help kill load" },
    Family { command: "slowlog", served: "get help len reset", refused: "" },
];

/// Subcommands that are served here.
pub(super) fn served(command: &str) -> impl Iterator<Item = &'static str> + use<> {
    family(command).map_or("", |family| family.served).split_whitespace()
}

/// Whether Redis has this subcommand.
pub(super) fn is_known(command: &str, subcommand: &str) -> bool {
    let refused = family(command).map_or("", |family| family.refused).split_whitespace();
    served(command).chain(refused).any(|known| known == subcommand)
}

fn family(command: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.command == command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::resp::command_table::Spec;

    #[test]
    fn every_family_is_a_command() {
        for family in FAMILIES {
            assert!(Spec::find(family.command.as_bytes()).is_some(), "{}", family.command);
        }
        assert!(is_known("config", "get") && is_known("config", "rewrite") && !is_known("get", "x"));
        assert_eq!(served("get").count(), 0);
    }
}
