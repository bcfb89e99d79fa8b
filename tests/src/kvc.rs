//! A `KeyValueCluster` on a real Kubernetes, as tests and demo see it: through `kubectl` like a user, and through the
//! API for what is waited for.

use annulus_operator::crd::KeyValueCluster;
use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, ListParams, Patch, PatchParams};
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A cluster in a namespace.
#[derive(Clone)]
pub struct Kvc {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    client: kube::Client,
}

/// Runs `kubectl` with the environment's context; standard input is `input`.
///
/// # Errors
/// When it cannot be started. A refusal of `kubectl` is in the output.
pub async fn kubectl(arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    let mut command = Command::new("kubectl");
    if let Ok(context) = std::env::var("CONTEXT") {
        command.args(["--context", &context]);
    }
    command.args(arguments).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    Ok(child.wait_with_output().await?)
}

/// Runs `kubectl` and expects it to succeed; returns what it printed.
///
/// # Errors
/// With what it said when it refused.
pub async fn kubectl_ok(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let output = kubectl(arguments, input).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {} failed: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Kvc {
    /// A cluster by name; it need not exist.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), client }
    }

    /// The client, for other objects.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The resource as it is now.
    ///
    /// # Errors
    /// When the API server does not give it.
    pub async fn get(&self) -> anyhow::Result<KeyValueCluster> {
        let api: Api<KeyValueCluster> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.get(&self.name).await?)
    }

    /// The ring that the nodes go by, as published.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ring(&self) -> anyhow::Result<dynamo::ring::Ring> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let data = api.get(&format!("{}-ring", self.name)).await?.data;
        let json = data.and_then(|mut data| data.remove("ring.json")).context("the ring has no document")?;
        Ok(dynamo::ring::from_json(json.as_bytes())?)
    }

    /// `kubectl apply` of a manifest in the cluster's namespace.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        kubectl_ok(&["-n", &self.namespace, "apply", "-f", "-"], manifest).await.map(drop)
    }

    /// Changes the resource by a JSON merge patch, without a process of its own.
    ///
    /// # Errors
    /// When it is none, or the API server refuses it.
    pub async fn patch(&self, patch: &str) -> anyhow::Result<()> {
        let api: Api<KeyValueCluster> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch: serde_json::Value = serde_json::from_str(patch)?;
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// `kubectl scale` of the resource.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub async fn scale(&self, replicas: i32) -> anyhow::Result<()> {
        let (kvc, count) = (format!("kvc/{}", self.name), format!("--replicas={replicas}"));
        kubectl_ok(&["-n", &self.namespace, "scale", &kvc, &count], "").await.map(drop)
    }

    /// Waits until `done` holds of the resource; `seen` is told of every look.
    ///
    /// # Errors
    /// When it does not within `limit`; with the last status.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&KeyValueCluster) -> bool,
    ) -> anyhow::Result<KeyValueCluster> {
        let start = Instant::now();
        let mut last = String::from("never read");
        while start.elapsed() < limit {
            match self.get().await {
                Ok(cluster) if done(&cluster) => return Ok(cluster),
                Ok(cluster) => last = serde_json::to_string(&cluster.status)?,
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        bail!("{}/{}: not {what} after {limit:?}; status: {last}", self.namespace, self.name)
    }

    /// Waits until the ring has `replicas` members, everything has moved and every pod is ready.
    ///
    /// # Errors
    /// As [`Kvc::until`].
    pub async fn settled(&self, replicas: i32, limit: Duration) -> anyhow::Result<KeyValueCluster> {
        self.until(&format!("settled with {replicas} replicas"), limit, |cluster| is_settled(cluster, replicas))
            .await
    }

    /// Pods of the cluster by name.
    ///
    /// # Errors
    /// When the API server does not list them.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = self.get().await?.status.and_then(|status| status.selector).context("no selector yet")?;
        Ok(api.list(&ListParams::default().labels(&selector)).await?.items)
    }

    /// Where applications connect: the client Service's RESP port.
    ///
    /// # Errors
    /// When there is no such Service.
    pub async fn address(&self) -> anyhow::Result<String> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = api.get(&self.name).await?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        Ok(format!("{ip}:6379"))
    }
}

/// Whether the ring has exactly these many members, nothing moves and every pod is ready.
#[must_use]
pub fn is_settled(cluster: &KeyValueCluster, replicas: i32) -> bool {
    let Some(status) = &cluster.status else { return false };
    status.observed_generation == cluster.metadata.generation
        && status.phase.as_deref() == Some("Running")
        && status.ready_replicas == replicas
        && status.replicas == replicas
        && status.rebalance.is_none()
        && status.ring.as_ref().is_some_and(|ring| ring.members == replicas)
}

/// A program of this workspace, built in the same profile as the test that asks.
///
/// # Errors
/// When it has not been built.
pub fn sibling_binary(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let exe = std::env::current_exe()?;
    let profile = exe.parent().and_then(|deps| deps.parent()).context("an odd place for a test")?;
    let path = profile.join(name);
    ensure!(path.exists(), "{} is not built: cargo build -p {name}", path.display());
    Ok(path)
}
