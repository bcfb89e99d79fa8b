//! Performs exactly the planned action, and hands the ring to nodes that lag behind.
//!
//! Objects are written by server-side apply under one field manager; the ring's `ConfigMap` by compare-and-swap.

use crate::build::{self, Built};
use crate::crd::KeyValueCluster;
use crate::nodes::NodeClient;
use crate::observe::{Seen, ask};
use crate::plan::{Action, NoProof, Observation, Plan, Proof, Scaling, StoredRing, prove};
use dynamo::ring::{self, Ring};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The one field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "annulus-operator";

/// An action that was not (wholly) performed. The next plan starts from what is then observed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused or did not answer; in the latter case the write may have happened.
    #[error("writing {what} failed: {source}")]
    Write {
        /// What was written.
        what: String,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The proof for letting a pod go did not hold when it was checked again. Nothing was changed.
    #[error("{pod} is not let go: asked once more, {why}")]
    Proof {
        /// The pod.
        pod: String,
        /// What was missing then.
        why: NoProof,
    },
    /// The world changed between the plan and its last check. Nothing was changed.
    #[error("{0} changed meanwhile")]
    Changed(&'static str),
}

/// What an action has done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The document that is published since.
    pub ring: Option<Box<Ring>>,
}

/// What it takes to act on one cluster.
pub struct Hands<'a> {
    /// Of the API server.
    pub client: &'a Client,
    /// Of the nodes.
    pub nodes: &'a dyn NodeClient,
    /// The resource.
    pub cluster: &'a KeyValueCluster,
    /// What was observed.
    pub seen: &'a Seen,
    /// What was built.
    pub built: &'a Built,
}

impl Hands<'_> {
    /// Performs the planned action and hands the ring to whoever lacks it. A node that cannot be reached gets it
    /// later, from its peers or from the next call.
    ///
    /// # Errors
    /// [`ApplyError`]; each says whether something was changed.
    pub async fn apply(&self, plan: &Plan) -> Result<Applied, ApplyError> {
        let applied = match &plan.action {
            Some(action) => self.perform(action).await?,
            None => Applied::default(),
        };
        match (&applied.ring, self.seen.observed.ring()) {
            (Some(ring), _) => self.hand_over(ring, &|_| true).await,
            (None, Some(ring)) => self.hand_over(ring, &|pod| plan.lagging.iter().any(|name| name == pod)).await,
            (None, None) => {}
        }
        Ok(applied)
    }

    async fn perform(&self, action: &Action) -> Result<Applied, ApplyError> {
        match action {
            Action::ApplyObjects { replicas, proven } => self.apply_objects(*replicas, proven).await?,
            Action::ScaleWorkload { replicas, proven, why } => {
                let version = match why {
                    Scaling::Grow | Scaling::PutBack { .. } => None,
                    Scaling::Shrink { proofs, resource_version } => {
                        self.check_again(proofs).await?;
                        Some(resource_version.as_str())
                    }
                };
                self.apply_stateful_set(*replicas, proven, version).await?;
            }
            Action::CreateRing(ring) | Action::RestoreRing { ring, .. } | Action::PublishRing { ring, .. } => {
                self.publish(ring).await?;
                return Ok(Applied { ring: Some(ring.clone()) });
            }
            Action::DeleteVolume { name, uid } => {
                self.delete::<PersistentVolumeClaim>(name, uid).await?;
            }
            Action::ReplaceVolume { volume, volume_uid, pod, pod_uid } => {
                self.delete::<PersistentVolumeClaim>(volume, volume_uid).await?;
                self.delete::<Pod>(pod, pod_uid).await?;
            }
            Action::GrowVolume { name } => self.grow_volume(name).await?,
            Action::RestartPod { name, uid } => self.delete::<Pod>(name, uid).await?,
        }
        Ok(Applied::default())
    }

    async fn apply_objects(&self, replicas: u32, proven: &BTreeSet<Uuid>) -> Result<(), ApplyError> {
        let Built { nodes_service, client_service, pod_disruption_budget, network_policy, stateful_set: _ } =
            self.built;
        self.apply_one(nodes_service).await?;
        self.apply_one(client_service).await?;
        self.apply_one(pod_disruption_budget).await?;
        match network_policy {
            Some(policy) => self.apply_one(policy).await?,
            None => self.remove_network_policy().await?,
        }
        self.apply_stateful_set(replicas, proven, None).await
    }

    async fn apply_stateful_set(
        &self,
        replicas: u32,
        proven: &BTreeSet<Uuid>,
        version: Option<&str>,
    ) -> Result<(), ApplyError> {
        let mut stateful_set = build::scaled(self.built.stateful_set.clone(), replicas, proven);
        stateful_set.metadata.resource_version = version.map(str::to_owned);
        self.apply_one::<StatefulSet>(&stateful_set).await
    }

    /// The policy of this cluster goes when the spec no longer asks for it; one that somebody else made stays.
    async fn remove_network_policy(&self) -> Result<(), ApplyError> {
        let api = self.api::<NetworkPolicy>();
        let name = self.cluster.name_any();
        let read = api.get_opt(&name).await;
        let found = read.map_err(|source| ApplyError::Write { what: format!("NetworkPolicy {name}"), source })?;
        match found.filter(|policy| policy.annotations().contains_key(build::BUILT_FROM)) {
            Some(policy) => self.delete::<NetworkPolicy>(&name, &policy.uid().unwrap_or_default()).await,
            None => Ok(()),
        }
    }

    /// Asks the leaving nodes once more, and makes sure that neither the wish nor the ring is another by now.
    async fn check_again(&self, proofs: &[Proof]) -> Result<(), ApplyError> {
        let read = |what: &'static str| {
            move |source| ApplyError::Write { what: format!("nothing; reading {what}"), source }
        };
        let name = self.cluster.name_any();
        let cluster = self.api::<KeyValueCluster>().get(&name).await.map_err(read("the KeyValueCluster"))?;
        if cluster.uid() != self.cluster.uid() || cluster.metadata.generation != self.cluster.metadata.generation {
            return Err(ApplyError::Changed("the KeyValueCluster"));
        }
        let ring_name = build::ring_config_map_name(&name);
        let config_map = self.api::<ConfigMap>().get(&ring_name).await.map_err(read("the ring"))?;
        let StoredRing::Held { ring, resource_version } = &self.seen.observed.stored else {
            return Err(ApplyError::Changed("the ring"));
        };
        if config_map.resource_version().as_ref() != Some(resource_version) {
            return Err(ApplyError::Changed("the ring"));
        }
        let asked = proofs.iter().map(|proof| async move { (proof, self.prove_again(ring, proof).await) });
        for (proof, result) in join_all(asked).await {
            result.map_err(|why| ApplyError::Proof { pod: proof.pod().to_owned(), why })?;
        }
        Ok(())
    }

    async fn prove_again(&self, ring: &Ring, proof: &Proof) -> Result<(), NoProof> {
        let pod = self.seen.observed.pods.iter().find(|pod| pod.name == proof.pod());
        let ip = pod.and_then(|pod| pod.ip).ok_or(NoProof::NoAnswer)?;
        let Observation::Answer(answer) = ask(self.nodes, ip).await else {
            return Err(NoProof::NoAnswer);
        };
        let member = ring.member_by_incarnation(proof.incarnation()).ok_or(NoProof::OtherIncarnation)?;
        prove(ring, member, Some(&answer)).map(|_| ())
    }

    /// Writes the document: created if there is none, else replaced if it is still the one that was observed.
    async fn publish(&self, ring: &Ring) -> Result<(), ApplyError> {
        let api = self.api::<ConfigMap>();
        let version = match &self.seen.observed.stored {
            StoredRing::Missing => None,
            StoredRing::Damaged { resource_version, .. } | StoredRing::Held { resource_version, .. } => {
                Some(resource_version.as_str())
            }
        };
        let config_map = build::ring_config_map(self.cluster, ring, version);
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match version {
            None => api.create(&parameters, &config_map).await,
            Some(_) => api.replace(&config_map.name_any(), &parameters, &config_map).await,
        };
        let what = || format!("ring epoch {}", ring.epoch);
        written.map(|_| ()).map_err(|source| ApplyError::Write { what: what(), source })
    }

    async fn hand_over(&self, ring: &Ring, to: &(dyn Fn(&str) -> bool + Sync)) {
        let json = ring::to_json(ring).into_bytes();
        let pods = self.seen.observed.pods.iter().filter(|pod| to(&pod.name));
        let installs = pods.filter_map(|pod| Some((pod, pod.ip?))).map(|(pod, ip)| {
            let json = json.clone();
            async move {
                if let Err(error) = self.nodes.install(ip, json).await {
                    tracing::debug!(pod = pod.name, epoch = ring.epoch, %error, "ring not handed over");
                }
            }
        });
        join_all(installs).await;
    }

    async fn grow_volume(&self, name: &str) -> Result<(), ApplyError> {
        let size = &self.cluster.spec.storage.size;
        let patch = serde_json::json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let written = self.api::<PersistentVolumeClaim>().patch(name, &parameters, &Patch::Merge(patch)).await;
        let what = || format!("the size of volume claim {name}");
        written.map(|_| ()).map_err(|source| ApplyError::Write { what: what(), source })
    }

    async fn apply_one<T>(&self, object: &T) -> Result<(), ApplyError>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        T: Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let name = object.name_any();
        let written = self.api::<T>().patch(&name, &parameters, &Patch::Apply(object)).await;
        let what = || format!("{} {name}", T::kind(&()));
        written.map(|_| ()).map_err(|source| ApplyError::Write { what: what(), source })
    }

    /// Deletes the object of this very UID; that it is gone already is as good.
    async fn delete<T>(&self, name: &str, uid: &str) -> Result<(), ApplyError>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        T: DeserializeOwned + Clone + std::fmt::Debug,
    {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api::<T>().delete(name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(ApplyError::Write { what: format!("{} {name}", T::kind(&())), source }),
        }
    }

    fn api<T>(&self) -> Api<T>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.cluster.namespace().unwrap_or_default())
    }
}
