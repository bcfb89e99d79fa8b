//! `annulus-operator`: `run` looks after clusters, `crd` prints the CRD, `check` asks the API server whether all is
//! there that `run` needs.

use annulus_operator::build::Defaults;
use annulus_operator::controller::Operator;
use annulus_operator::http::{self, Pages};
use annulus_operator::leader::Leadership;
use annulus_operator::metrics::Metrics;
use annulus_operator::nodes::GrpcNodes;
use annulus_operator::{check, crd};
use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::Client;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Parser)]
#[command(name = "annulus-operator", version, about = "Runs Annulus clusters on Kubernetes")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look after clusters.
    Run(Box<Run>),
    /// Print the CRD as YAML.
    Crd,
    /// Ask the API server whether it serves the resource and lets this account list it.
    Check(Scope),
}

#[derive(Args)]
struct Scope {
    /// The only namespace to look at; absent or empty: all.
    #[arg(long, env = "ANNULUS_WATCH_NAMESPACE")]
    namespace: Option<String>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    scope: Scope,
    /// Image of nodes whose cluster names none.
    #[arg(long, env = "ANNULUS_NODE_IMAGE")]
    node_image: Option<String>,
    /// Namespace of the lease; absent: the one the operator runs in.
    #[arg(long, env = "ANNULUS_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of the lease.
    #[arg(long, env = "ANNULUS_LEASE_NAME", default_value = "annulus-operator")]
    lease_name: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "ANNULUS_HTTP", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// How often a cluster is looked at when nothing happens, in seconds.
    #[arg(long, env = "ANNULUS_RESYNC_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    resync_seconds: u64,
    /// How long a node may take to answer, in milliseconds.
    #[arg(long, env = "ANNULUS_NODE_TIMEOUT_MS", default_value_t = 1500, value_parser = clap::value_parser!(u64).range(50..))]
    node_timeout_ms: u64,
    /// How log lines are written.
    #[arg(long, env = "ANNULUS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => {
            print!("{}", crd::yaml()?);
            Ok(())
        }
        Command::Check(scope) => {
            let namespace = present(scope.namespace);
            let client = Client::try_default().await.context("no way to the API server")?;
            let count = check::check(client, namespace.as_deref()).await?;
            println!("the API server serves KeyValueClusters and lists {count}");
            Ok(())
        }
        Command::Run(run) => operate(*run).await,
    }
}

/// Environment variables that are set to nothing are as good as absent.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

async fn operate(run: Run) -> anyhow::Result<()> {
    log(run.log_format);
    let (stop, stopping) = watch::channel(false);
    let stopped = move || {
        let mut stopping = stopping.clone();
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    tokio::spawn(stop_on_signal(stop)?);

    let client = Client::try_default().await.context("no way to the API server")?;
    let pages = Pages::default();
    let listener = TcpListener::bind(run.http).await.with_context(|| format!("cannot listen on {}", run.http))?;
    let serving = tokio::spawn(http::serve(listener, pages.clone(), stopped()));
    let version = client.apiserver_version().await.context("the API server did not answer")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), kubernetes = version.git_version, "operator starts");
    pages.ready.store(true, Ordering::Relaxed);

    act(run, client, &pages.metrics, stopped).await?;
    serving.await.context("the HTTP server failed")?.context("the HTTP server failed")?;
    tracing::info!("operator stops");
    Ok(())
}

/// Contends for the lease and, once it is held, looks after clusters until `stopped` is done.
async fn act<S>(run: Run, client: Client, metrics: &Arc<Metrics>, stopped: impl Fn() -> S) -> anyhow::Result<()>
where
    S: Future<Output = ()> + Send + Sync + 'static,
{
    let own_namespace = client.default_namespace().to_owned();
    let namespace = present(run.lease_namespace).unwrap_or_else(|| own_namespace.clone());
    let identity = present(std::env::var("POD_NAME").ok());
    let identity = identity.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let leadership = Leadership::contend(client.clone(), &namespace, &run.lease_name, &identity);
    let mut leadership = leadership.await.context("the lease can be neither read nor created")?;
    tracing::info!(lease = run.lease_name, namespace, identity, "waiting for the lease");
    let won = tokio::select! {
        won = leadership.won() => won,
        () = stopped() => false,
    };
    let mut lost = false;
    if won {
        tracing::info!("this operator acts");
        metrics.leads(true);
        let defaults = Defaults { node_image: present(run.node_image), operator_namespace: own_namespace };
        let timeout = Duration::from_millis(run.node_timeout_ms);
        let mut operator = Operator::new(client, Arc::new(GrpcNodes { timeout }), defaults, metrics.clone());
        operator.resync = Duration::from_secs(run.resync_seconds);
        operator.namespace = present(run.scope.namespace);
        let acting = Arc::new(operator).run(stopped());
        // When the lease is lost, rounds under way are dropped where they stand: another operator may act now.
        lost = tokio::select! {
            () = acting => false,
            () = leadership.lost() => true,
        };
        metrics.leads(false);
    }
    leadership.release().await;
    if lost {
        anyhow::bail!("the lease was lost; exiting, to start over");
    }
    Ok(())
}

/// Signals end the operator, each once.
fn stop_on_signal(stop: watch::Sender<bool>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        let _ = stop.send(true);
        // The sender lives on, so that nobody mistakes its end for the signal.
        std::future::pending::<()>().await;
    })
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_runtime=warn"));
    let colours = std::io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(colours).with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
