//! Volumes that no Node can ever reach again: bound to Nodes that are gone, or gone themselves.

use super::{ObserveError, failed};
use crate::plan::Pod;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;

/// Why each of these claims is out of reach for good, by the claim's name. Only claims of pods for which no Node could
/// be found are looked into.
pub(super) async fn stranded(
    client: &Client,
    claims: &[PersistentVolumeClaim],
    pods: &[Pod],
) -> Result<BTreeMap<String, String>, ObserveError> {
    let waits = |claim: &&PersistentVolumeClaim| {
        let name = claim.name_any();
        pods.iter().any(|pod| pod.unscheduled_seconds.is_some() && name == format!("data-{}", pod.name))
    };
    let waiting: Vec<&PersistentVolumeClaim> = claims.iter().filter(waits).collect();
    if waiting.is_empty() {
        return Ok(BTreeMap::new());
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list_metadata(&ListParams::default()).await.map_err(failed("Nodes"))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let read = waiting.iter().map(|claim| async {
        let volume = match claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) {
            Some(name) => volumes.get_opt(&name).await.map_err(failed("PersistentVolumes"))?,
            None => None,
        };
        Ok::<_, ObserveError>(why(claim, volume.as_ref(), &nodes.items).map(|why| (claim.name_any(), why)))
    });
    Ok(try_join_all(read).await?.into_iter().flatten().collect())
}

/// Why the volume of this claim can never be reached again, if so. A claim that has never been bound to one can be
/// bound anywhere yet.
fn why(
    claim: &PersistentVolumeClaim,
    volume: Option<&PersistentVolume>,
    nodes: &[PartialObjectMeta<Node>],
) -> Option<String> {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone())?;
    let Some(volume) = volume else {
        return Some(format!("PersistentVolume {name} is gone"));
    };
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let reached =
        |node: &PartialObjectMeta<Node>| affinity.node_selector_terms.iter().any(|term| fits(term, node));
    (!nodes.iter().any(reached)).then(|| format!("no Node is left that PersistentVolume {name} can be used on"))
}

/// Whether a Node satisfies a term. What is not understood here counts as satisfied, so that no volume is given up by
/// a misunderstanding.
fn fits(term: &NodeSelectorTerm, node: &PartialObjectMeta<Node>) -> bool {
    let labels = term.match_expressions.iter().flatten().all(|e| satisfied(e, node.labels().get(&e.key)));
    let name = node.name_any();
    labels && term.match_fields.iter().flatten().all(|e| e.key != "metadata.name" || satisfied(e, Some(&name)))
}

fn satisfied(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let named = || value.is_some_and(|value| requirement.values.iter().flatten().any(|v| v == value));
    match requirement.operator.as_str() {
        "In" => named(),
        "NotIn" => !named(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::why;
    use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
    use kube::core::PartialObjectMeta;
    use serde_json::{Value, from_value, json};

    fn claim(volume: Option<&str>) -> PersistentVolumeClaim {
        from_value(json!({"spec": {"volumeName": volume}})).unwrap()
    }

    fn volume(operator: &str, values: &[&str]) -> PersistentVolume {
        let expression = json!({"key": "kubernetes.io/hostname", "operator": operator, "values": values});
        let terms = json!([{"matchExpressions": [expression]}]);
        from_value(json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}})).unwrap()
    }

    fn nodes(names: &[&str]) -> Vec<PartialObjectMeta<Node>> {
        let node = |name: &&str| -> Value {
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        };
        names.iter().map(|name| from_value(node(name)).unwrap()).collect()
    }

    #[test]
    fn a_volume_is_stranded_when_the_nodes_it_is_bound_to_are_gone() {
        let claim = claim(Some("v"));
        let local = volume("In", &["node-2"]);
        assert_eq!(why(&claim, Some(&local), &nodes(&["node-1", "node-2"])), None);
        let told = why(&claim, Some(&local), &nodes(&["node-1"])).unwrap();
        assert_eq!(told, "no Node is left that PersistentVolume v can be used on");
        assert_eq!(why(&claim, None, &nodes(&["node-1"])).unwrap(), "PersistentVolume v is gone");
    }

    #[test]
    fn a_volume_that_some_node_may_reach_is_not() {
        let none = nodes(&["node-1"]);
        assert_eq!(why(&claim(None), None, &none), None, "never bound");
        let anywhere: PersistentVolume = from_value(json!({"spec": {}})).unwrap();
        assert_eq!(why(&claim(Some("v")), Some(&anywhere), &none), None, "usable anywhere");
        assert_eq!(why(&claim(Some("v")), Some(&volume("Gt", &["3"])), &none), None, "not understood");
        assert_eq!(why(&claim(Some("v")), Some(&volume("Exists", &[])), &none), None);
    }
}
