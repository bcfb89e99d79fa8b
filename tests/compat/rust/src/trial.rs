//! Writing while something happens to the ring, and counting afterwards.

use std::env;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// What whatever may fail returns.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long a trial takes at least.
const TRIAL_MIN: Duration = Duration::from_secs(6);
/// Fewer writes show nothing.
const WRITTEN_MIN: usize = 60;

/// What a trial needs of a client.
pub trait Store {
    /// Writes.
    fn write(&self, key: String, value: u64) -> impl Future<Output = Outcome> + Send;
    /// Reads.
    fn read(&self, key: String) -> impl Future<Output = Outcome<Option<u64>>> + Send;
}

/// Writes number after number while the script `ANNULUS_<what>` runs; whatever was acknowledged has to be there after.
pub async fn through(name: &str, what: &str, store: &impl Store) -> Outcome {
    let (mut written, mut failed) = (Vec::new(), 0);
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let mut script = Command::new("sh").arg("-c").arg(env::var(format!("ANNULUS_{what}"))?).spawn()?;
    let (began, mut number) = (Instant::now(), 0);
    while script.try_wait()?.is_none() || began.elapsed() < TRIAL_MIN {
        number += 1;
        match store.write(format!("{name}:{what}:{number}"), number).await {
            Ok(()) => {
                written.push(number);
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) => {
                failed += 1;
                println!("{name}: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    assert!(script.wait().await?.success(), "the script {what} failed");
    for &number in &written {
        let mut attempts = 0;
        let got = loop {
            match store.read(format!("{name}:{what}:{number}")).await {
                Ok(got) => break got,
                Err(error) if attempts == 100 => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            attempts += 1;
        };
        assert_eq!(got, Some(number), "{name}: an acknowledged write is lost");
    }
    println!("{name}, {what}: {} written, {failed} failed, longest pause {longest:.1?}", written.len());
    assert!(written.len() >= WRITTEN_MIN, "{name}: too few");
    assert!(what != "RESIZE" || failed == 0, "{name}: failures while nobody died");
    Ok(())
}
