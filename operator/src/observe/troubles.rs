//! What keeps a pod from starting, in the kubelet's own words: a Secret that is missing, a volume that cannot be mounted.

use super::{ObserveError, failed};
use crate::plan::{Observation, Pod};
use futures::future::try_join_all;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};

/// Pods that are looked into in one round; what keeps one from starting usually keeps all of them.
const PODS_MAX: usize = 3;
const EVENTS_MAX: u32 = 20;

/// Adds the last warning about each pod that has no address to what is known of it.
pub(super) async fn add(client: &Client, namespace: &str, pods: &mut [Pod]) -> Result<(), ObserveError> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let stuck =
        pods.iter_mut().filter(|pod| pod.ip.is_none() && pod.unscheduled_seconds.is_none() && !pod.terminating);
    let read = stuck.take(PODS_MAX).map(|pod| async {
        let fields = format!("type=Warning,regarding.uid={}", pod.uid);
        let list = events.list(&ListParams::default().fields(&fields).limit(EVENTS_MAX)).await;
        let list = list.map_err(failed("Events"))?;
        if let (Some(warning), Observation::NoAnswer(why)) = (last(&list.items), &mut pod.node) {
            *why = format!("{why}: {warning}");
        }
        Ok::<_, ObserveError>(())
    });
    try_join_all(read).await.map(drop)
}

/// The newest of some events, as a sentence.
fn last(events: &[Event]) -> Option<String> {
    let newest = events.iter().max_by_key(|event| when(event))?;
    newest.note.as_ref().map(|note| note.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn when(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let once = event.event_time.as_ref().map(|time| time.0);
    // Kubelets still write the older fields.
    let older = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    series.or(once).or(older)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(fields: serde_json::Value) -> Event {
        let mut event = serde_json::json!({"metadata": {"name": "e"}, "eventTime": null});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_newest_warning_counts_however_it_tells_its_time() {
        let older = event(serde_json::json!({
            "note": "an old story", "deprecatedLastTimestamp": "2026-01-01T00:00:00Z",
        }));
        let newest = event(serde_json::json!({
            "note": "secret \"users\"\n not found", "deprecatedLastTimestamp": "2026-01-01T00:00:09Z",
        }));
        let between = event(serde_json::json!({"note": "another", "eventTime": "2026-01-01T00:00:05.000000Z"}));
        assert_eq!(last(&[older, newest, between]), Some("secret \"users\" not found".to_owned()));
        assert_eq!(last(&[]), None);
    }
}
