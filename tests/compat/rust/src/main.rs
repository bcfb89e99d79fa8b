//! redis-rs and fred against a ring: one connection and the cluster client of each, while the ring changes and nodes die.

mod trial;

use fred::prelude::{
    Builder, ClientLike, Config, HashesInterface, KeysInterface, ReconnectPolicy, Server, ServerConfig, SetsInterface,
};
use fred::types::config::ClusterDiscoveryPolicy;
use redis::AsyncCommands;
use std::env;
use std::time::Duration;
use trial::{Outcome, Store, through};

/// Longest that a client waits for one reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// What redis-rs's plain and cluster connections have in common.
async fn redis_rs<C>(name: &str, mut client: C) -> Outcome
where
    C: AsyncCommands + Clone + Send + Sync,
{
    let key = |end: &str| format!("{name}:{end}");
    for end in ["a", "n", "s", "h", "l"] {
        let () = client.del(key(end)).await?;
    }
    let () = client.set_ex(key("a"), "x", 100).await?;
    assert_eq!(client.get::<_, String>(key("a")).await?, "x");
    assert!(client.set_nx::<_, _, bool>(key("l"), 1).await?);
    assert!(!client.set_nx::<_, _, bool>(key("l"), 2).await?);
    assert_eq!(client.incr::<_, _, i64>(key("n"), 5).await?, 5);
    assert_eq!(client.sadd::<_, _, i64>(key("s"), &["a", "b"]).await?, 2);
    assert!(client.sismember::<_, _, bool>(key("s"), "a").await?);
    assert_eq!(client.hset::<_, _, _, i64>(key("h"), "f", 1).await?, 1);
    assert_eq!(client.hincr::<_, _, _, i64>(key("h"), "f", 2).await?, 3);
    let error = client.incr::<_, _, i64>(key("s"), 1).await.expect_err("a set is no number");
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    let mut pipe = redis::pipe();
    for at in 0..200 {
        // One slot: redis-rs sends a pipeline of a cluster to one node.
        pipe.set(format!("{{{name}}}p{at}"), at).ignore().get(format!("{{{name}}}p{at}"));
    }
    let got: Vec<i64> = pipe.query_async(&mut client).await?;
    assert_eq!(got, (0..200).collect::<Vec<_>>());
    println!("redis-rs: {name}");
    Ok(())
}

/// What fred's plain and cluster clients have in common.
async fn fred(name: &str, client: &fred::prelude::Client) -> Outcome {
    let key = |end: &str| format!("{name}:{end}");
    for end in ["a", "n", "s", "h", "l"] {
        let () = client.del(key(end)).await?;
    }
    let () = client.set(key("a"), "x", Some(fred::types::Expiration::EX(100)), None, false).await?;
    assert_eq!(client.get::<String, _>(key("a")).await?, "x");
    assert_eq!(client.incr_by::<i64, _>(key("n"), 5).await?, 5);
    assert_eq!(client.sadd::<i64, _, _>(key("s"), vec!["a", "b"]).await?, 2);
    assert_eq!(client.hset::<i64, _, _>(key("h"), ("f", 1)).await?, 1);
    assert_eq!(client.hincrby::<i64, _, _>(key("h"), "f", 2).await?, 3);
    let error = client.incr::<i64, _>(key("s")).await.expect_err("a set is no number");
    assert!(error.details().starts_with("WRONGTYPE"), "{error}");
    let pipeline = client.pipeline();
    for at in 0..200 {
        let () = pipeline.set(key(&format!("p{at}")), at, None, None, false).await?;
        let () = pipeline.get(key(&format!("p{at}"))).await?;
    }
    let got: Vec<fred::types::Value> = pipeline.all().await?;
    let got: Vec<_> = got.iter().skip(1).step_by(2).filter_map(fred::types::Value::as_i64).collect();
    assert_eq!(got, (0..200).collect::<Vec<_>>());
    println!("fred: {name}");
    Ok(())
}

impl<C: AsyncCommands + Clone + Send + Sync> Store for C {
    async fn write(&self, key: String, value: u64) -> Outcome {
        Ok(AsyncCommands::set::<_, _, ()>(&mut self.clone(), key, value).await?)
    }

    async fn read(&self, key: String) -> Outcome<Option<u64>> {
        Ok(AsyncCommands::get(&mut self.clone(), key).await?)
    }
}

/// fred's client, as a trial sees it.
struct Fred(fred::prelude::Client);

impl Store for Fred {
    async fn write(&self, key: String, value: u64) -> Outcome {
        Ok(self.0.set::<(), _, _>(key, value.to_string(), None, None, false).await?)
    }

    async fn read(&self, key: String) -> Outcome<Option<u64>> {
        Ok(self.0.get(key).await?)
    }
}

async fn fred_client(server: ServerConfig, resp3: bool) -> Outcome<fred::prelude::Client> {
    let version = if resp3 { fred::types::RespVersion::RESP3 } else { fred::types::RespVersion::RESP2 };
    let client = Builder::from_config(Config { server, version, ..Config::default() })
        .with_performance_config(|performance| performance.default_command_timeout = REPLY_TIMEOUT)
        .with_connection_config(|connection| connection.max_command_attempts = 20)
        .set_policy(ReconnectPolicy::new_constant(0, 50))
        .build()?;
    client.init().await?;
    Ok(client)
}

#[tokio::main]
async fn main() -> Outcome {
    let (host, port) = (env::var("ANNULUS_HOST")?, env::var("ANNULUS_PORT")?.parse()?);
    let url = format!("redis://{host}:{port}/");
    for (name, url) in [("plain", url.clone()), ("plain3", format!("{url}?protocol=resp3"))] {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(REPLY_TIMEOUT));
        let client = redis::Client::open(url)?;
        redis_rs(name, client.get_multiplexed_async_connection_with_config(&config).await?).await?;
    }
    let cluster = redis::cluster::ClusterClientBuilder::new([url.as_str()])
        .retries(20)
        .max_retry_wait(500)
        .connection_timeout(REPLY_TIMEOUT)
        .response_timeout(REPLY_TIMEOUT)
        .build()?
        .get_async_connection()
        .await?;
    redis_rs("cluster", cluster.clone()).await?;
    through("redis-rs cluster", "RESIZE", &cluster).await?;
    through("redis-rs cluster", "TROUBLE", &cluster).await?;
    let manager = redis::aio::ConnectionManagerConfig::new().set_response_timeout(Some(REPLY_TIMEOUT));
    let plain = redis::Client::open(url)?.get_connection_manager_with_config(manager).await?;
    through("redis-rs plain", "KILL", &plain).await?;

    for (name, resp3) in [("plain", false), ("plain3", true)] {
        fred(&format!("fred-{name}"), &fred_client(ServerConfig::new_centralized(&host, port), resp3).await?).await?;
    }
    let nodes = ServerConfig::Clustered {
        hosts: vec![Server::new(&host, port)],
        policy: ClusterDiscoveryPolicy::default(),
    };
    let cluster = fred_client(nodes, false).await?;
    fred("fred-cluster", &cluster).await?;
    through("fred cluster", "RESIZE", &Fred(cluster.clone())).await?;
    through("fred cluster", "TROUBLE", &Fred(cluster)).await?;
    Ok(())
}
