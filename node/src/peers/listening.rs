//! Noticing that a stream has been silent for too long.

use super::client::{HEARTBEAT, SILENCE_MAX};
use dynamo::detector::Silence;
use std::pin::Pin;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// From when a stream begins until it ends.
pub(super) struct Listening {
    since: Instant,
    silence: Silence,
    /// One timer for all of it: what is heard moves nothing, the timer is set anew when it has run out.
    timer: Pin<Box<Sleep>>,
}

impl Listening {
    pub(super) fn new() -> Self {
        let since = Instant::now();
        let silence = Silence::new(SILENCE_MAX, HEARTBEAT, since.elapsed());
        Self { since, silence, timer: Box::pin(sleep(SILENCE_MAX)) }
    }

    /// A sign of life.
    pub(super) fn heard(&mut self) {
        self.silence.heard(self.since.elapsed());
    }

    /// Resolves when nothing has been heard for too long. May be dropped and called again.
    pub(super) async fn too_long(&mut self) {
        loop {
            self.timer.as_mut().await;
            if self.silence.is_too_long(self.since.elapsed()) {
                return;
            }
            self.timer.set(sleep_until(self.since + self.silence.due()));
        }
    }
}
