//! Reading a cluster's resource and ring document.

use crate::explain::Told;
use anyhow::Context;
use dynamo::ring::{Ring, from_json};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, Config};

/// Where clusters are read from.
pub struct Source {
    client: Client,
    namespace: String,
}

impl Source {
    /// Uses the caller's kubeconfig.
    pub async fn connect(namespace: Option<String>) -> anyhow::Result<Self> {
        let config = Config::infer().await.context("no way to a cluster; is there a kubeconfig?")?;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// The resource, untyped: this program follows no version of the operator.
    pub async fn resource(&self, name: &str) -> anyhow::Result<DynamicObject> {
        let kind = GroupVersionKind::gvk("annulus.dev", "v1alpha1", "KeyValueCluster");
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        api.get(name).await.with_context(|| format!("reading kvc/{name} in namespace {}", self.namespace))
    }

    /// What was told about the resource, oldest first.
    pub async fn told(&self, name: &str) -> anyhow::Result<Vec<Told>> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let fields = format!("involvedObject.kind=KeyValueCluster,involvedObject.name={name}");
        let events = api.list(&ListParams::default().fields(&fields)).await.context("reading events")?;
        let mut told: Vec<Told> = events
            .into_iter()
            .map(|event| {
                let last = event.series.and_then(|series| series.last_observed_time).or(event.event_time);
                let at = last.map(|time| time.0.to_string());
                Told {
                    at: at.or(event.last_timestamp.map(|time| time.0.to_string())).unwrap_or_default(),
                    kind: event.type_.unwrap_or_default(),
                    reason: event.reason.unwrap_or_default(),
                    message: event.message.unwrap_or_default(),
                }
            })
            .collect();
        told.sort_by(|one, other| one.at.cmp(&other.at));
        Ok(told)
    }

    /// The published ring document.
    pub async fn ring(&self, name: &str) -> anyhow::Result<Ring> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("{name}-ring");
        let map =
            api.get(&name).await.with_context(|| format!("reading configmap/{name}; is there a ring yet?"))?;
        let json = map.data.and_then(|mut data| data.remove("ring.json")).context("it holds no ring.json")?;
        Ok(from_json(json.as_bytes())?)
    }
}
