//! Which connections CLIENT LIST tells of and CLIENT KILL ends.

use super::clients::Client;
use super::error::{CommandError, shown};
use super::parse::integer;
use bytes::Bytes;

/// What a connection must be; what is not asked for may be anything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientFilter {
    ids: Option<Vec<u64>>,
    addresses: Option<Bytes>,
    local_addresses: Option<Bytes>,
    user: Option<Bytes>,
    /// Whether of a kind that there is: every connection is a normal one here.
    normal: Option<bool>,
    age_seconds_min: Option<u64>,
    skip_me: Option<bool>,
}

impl ClientFilter {
    /// Reads `[ID id …] [TYPE type] [USER name] [ADDR address] [LADDR address] [MAXAGE seconds] [SKIPME YES|NO]`.
    ///
    /// # Errors
    /// As Redis words them; `no_id` for what is no id.
    pub(super) fn parse(mut options: &[Bytes], no_id: &'static str) -> Result<Self, CommandError> {
        let mut filter = Self::default();
        while let [option, value, rest @ ..] = options {
            options = rest;
            match option.to_ascii_lowercase().as_slice() {
                b"id" => {
                    let more = rest.iter().take_while(|value| integer(value).is_some()).count();
                    let (ids, rest) = rest.split_at(more);
                    options = rest;
                    for id in std::iter::once(value).chain(ids) {
                        let id = integer(id).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                        filter.ids.get_or_insert_default().push(id.ok_or(CommandError::Fixed(no_id))?);
                    }
                }
                b"type" => filter.normal = Some(is_normal(value)?),
                b"user" => filter.user = Some(value.clone()),
                b"addr" => filter.addresses = Some(value.clone()),
                b"laddr" => filter.local_addresses = Some(value.clone()),
                b"maxage" => filter.age_seconds_min = Some(age(value)?),
                b"skipme" => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filter.skip_me = Some(true),
                    b"no" => filter.skip_me = Some(false),
                    _ => return Err(CommandError::Syntax),
                },
                _ => return Err(CommandError::Syntax),
            }
        }
        if options.is_empty() { Ok(filter) } else { Err(CommandError::Syntax) }
    }

    /// The connection from this address, in the way of Redis before 2.8.
    pub(super) fn of_address(address: &Bytes) -> Self {
        Self { addresses: Some(address.clone()), skip_me: Some(false), ..Self::default() }
    }

    /// The user whose connections are meant.
    pub(super) fn user(&self) -> Option<&Bytes> {
        self.user.as_ref()
    }

    /// Whether a connection is meant. `own`: the one that asks, which is left out if `skips_own` unless told otherwise.
    pub(super) fn includes(&self, client: &Client, own: u64, skips_own: bool, now_ms: u64) -> bool {
        let is =
            |wanted: &Option<Bytes>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text.as_bytes());
        let skipped = client.id == own && self.skip_me.unwrap_or(skips_own);
        let age_seconds = now_ms.saturating_sub(client.since_ms) / 1000;
        !skipped
            && self.normal != Some(false)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.age_seconds_min.is_none_or(|least| age_seconds >= least)
            && is(&self.user, &client.names.lock().user)
            && is(&self.addresses, &client.address())
            && is(&self.local_addresses, &client.local_address())
    }
}

fn is_normal(kind: &Bytes) -> Result<bool, CommandError> {
    match kind.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"primary" | b"replica" | b"slave" | b"pubsub" => Ok(false),
        _ => Err(CommandError::ClientType(shown(Some(kind)))),
    }
}

fn age(seconds: &Bytes) -> Result<u64, CommandError> {
    let seconds = integer(seconds).ok_or(CommandError::Fixed("ERR maxage is not an integer or out of range"))?;
    let seconds = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0);
    seconds.ok_or(CommandError::Fixed("ERR maxage should be greater than 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Ends;
    use crate::server::resp::clients::Clients;
    use std::sync::Arc;

    fn parse(line: &str) -> Result<ClientFilter, CommandError> {
        let words: Vec<Bytes> = line.split_whitespace().map(|word| Bytes::from(word.to_owned())).collect();
        ClientFilter::parse(&words, "ERR no id")
    }

    #[test]
    fn who_is_meant() {
        let clients = Arc::new(Clients::default());
        let ends = Ends { remote: Some(([10, 0, 0, 7], 4000).into()), local: Some(([10, 0, 0, 1], 6379).into()) };
        let (entry, _other) = (clients.enter(ends, 1000, 9).unwrap(), clients.enter(Ends::default(), 1000, 9));
        let client = &entry.client;
        client.names.lock().user = String::from("app");
        for (line, included) in [
            ("", true),
            ("ID 1", true),
            ("id 2 1 USER app", true),
            ("ID 2", false),
            ("USER app ADDR 10.0.0.7:4000", true),
            ("USER default", false),
            ("ADDR 10.0.0.7:4001", false),
            ("LADDR 10.0.0.1:6379", true),
            ("TYPE normal", true),
            ("TYPE pubsub", false),
            ("MAXAGE 4", true),
            ("MAXAGE 5", false),
            ("SKIPME yes", false),
            ("SKIPME no", true),
        ] {
            assert_eq!(parse(line).unwrap().includes(client, 1, false, 5000), included, "{line}");
        }
        assert!(!parse("").unwrap().includes(client, 1, true, 5000), "unless told otherwise nobody ends itself");
    }

    #[test]
    fn what_is_no_filter() {
        for line in ["ID", "ID 0", "ID x", "TYPE wrong", "MAXAGE 0", "MAXAGE x", "SKIPME maybe", "BLAH 1", "ADDR"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
