//! Users from a Secret: nobody gets in without one, and a Secret that is missing is named.

use crate::harness::{LIMIT, clean_up, fresh_namespace, manifest};
use annulus_tests::kvc::{Kvc, kubectl_ok};
use anyhow::{Context, bail, ensure};
use redis::RedisError;
use std::time::{Duration, Instant};

const SECRET: &str = "kv-users";
/// How soon a stall is to give its reason.
const REASON_WITHIN: Duration = Duration::from_secs(10);
const USERS: &str = "user default off\nuser app on >swordfish ~app:* +@all\n";

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn users_come_from_a_secret_and_a_missing_one_is_named() -> anyhow::Result<()> {
    fresh_namespace("users").await?;
    let kvc = Kvc::new(kube::Client::try_default().await?, "users", "kv");
    let spec = format!("replicas: 3\npartitions: 256\nstorage: {{size: 1Gi}}\nauth: {{secretName: {SECRET}}}");
    kvc.apply(&manifest("kv", &spec)).await?;
    let (said, took) = reason(&kvc).await?;
    println!("after {:.1} s status says: {said}", took.as_secs_f64());

    let literal = format!("--from-literal=users.acl={USERS}");
    kubectl_ok(&["-n", "users", "create", "secret", "generic", SECRET, &literal], "").await?;
    kvc.settled(3, LIMIT).await?;
    let address = kvc.address().await?;
    ensure!(refusal(&address, "", "SET app:1 x").await?.contains("NOAUTH"), "a stranger may write");
    let wrong = connected(&address, "app:wrong@").await.map(drop);
    let refused = wrong.as_ref().is_err_and(|error| error.kind() == redis::ErrorKind::AuthenticationFailed);
    ensure!(refused, "a wrong password: {wrong:?}");
    ensure!(refusal(&address, "app:swordfish@", "SET other:1 x").await?.contains("NOPERM"), "any key will do");
    let mut connection = connected(&address, "app:swordfish@").await?;
    redis::cmd("SET").arg("app:1").arg("x").query_async::<()>(&mut connection).await?;
    let read: String = redis::cmd("GET").arg("app:1").query_async(&mut connection).await?;
    ensure!(read == "x", "read {read:?}");
    clean_up(&kvc).await
}

/// What status says of the missing Secret, and how soon after the pods were there.
async fn reason(kvc: &Kvc) -> anyhow::Result<(String, Duration)> {
    let deadline = Instant::now() + LIMIT;
    while !kvc.pods().await.is_ok_and(|pods| !pods.is_empty()) {
        ensure!(Instant::now() < deadline, "there are no pods");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let began = Instant::now();
    loop {
        let status = kvc.get().await?.status.unwrap_or_default();
        let said = serde_json::to_string(&status)?;
        if let Some(condition) = status.conditions.iter().find(|condition| condition.message.contains(SECRET)) {
            return Ok((condition.message.clone(), began.elapsed()));
        }
        if began.elapsed() > REASON_WITHIN {
            bail!("status does not name the missing Secret: {said}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn connected(address: &str, user: &str) -> Result<redis::aio::MultiplexedConnection, RedisError> {
    redis::Client::open(format!("redis://{user}{address}/"))?.get_multiplexed_async_connection().await
}

/// The error that a command is answered with, or the attempt to connect for it.
async fn refusal(address: &str, user: &str, command: &str) -> anyhow::Result<String> {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().context("no command")?);
    words.for_each(|word| {
        cmd.arg(word);
    });
    let answer = match connected(address, user).await {
        Ok(mut connection) => cmd.query_async::<redis::Value>(&mut connection).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(value) => bail!("{command} as {user:?} was answered with {value:?}"),
        Err(error) => Ok(format!("{} {error}", error.code().unwrap_or_default())),
    }
}
