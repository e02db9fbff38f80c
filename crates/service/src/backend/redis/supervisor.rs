//! The task that keeps the connections open and the cached collections current: it checks the servers
//! at intervals, reconnects, and retries after a growing pause with random jitter.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Weak, mpsc::SyncSender},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Error, Redis, error};
use crate::sync::Arc;

/// Time between two health checks while all servers are healthy.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Health checks per refresh of the collections, which other clients may change.
const CHECKS_PER_REFRESH: u32 = 10;

/// Shortest and longest pause before a retry.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Supervises the servers until `closing` is cancelled or the backend is dropped. Sends to `first`
/// after the first check.
pub(super) async fn supervise(
    redis: Weak<Redis>,
    closing: CancellationToken,
    wake: Arc<Notify>,
    first: SyncSender<()>,
) {
    let mut first = Some(first);
    let mut failures = 0;
    let mut checks = 0;
    loop {
        let Some(redis) = redis.upgrade() else { return };
        let reload = checks % CHECKS_PER_REFRESH == 0 || redis.state().is_scanning();
        let outcome = tokio::select! {
            () = closing.cancelled() => return,
            outcome = catch_panic(async move { redis.health_check(reload).await }) => outcome,
        };
        let pause = match outcome {
            Ok(()) => {
                failures = 0;
                CHECK_INTERVAL
            }
            Err(error) => {
                tracing::debug!(%error, "the Redis health check failed");
                failures += 1;
                backoff(failures)
            }
        };
        if let Some(first) = first.take() {
            // The receiver is gone if opening the store was abandoned.
            let _ = first.send(());
        }
        let woken = async {
            // After a failure the pause is kept, so that failing commands cannot cause a busy loop.
            if failures > 0 { std::future::pending().await } else { wake.notified().await }
        };
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(pause) => checks += 1,
            // A command found a problem, or many documents were written.
            () = woken => checks = 0,
        }
    }
}

/// Runs `work` and turns a panic into an error, so that the supervisor tries again.
async fn catch_panic(work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Result<(), Error> {
    // Dropping a set aborts its tasks.
    let mut task = JoinSet::new();
    task.spawn(work);
    task.join_next().await.expect("there is one task").unwrap_or_else(|panic| {
        tracing::error!(%panic, "the Redis health check panicked; it will run again");
        Err(error::panicked())
    })
}

/// The pause after this many consecutive failures: doubles each time, and its second half is random
/// so that many clients do not return at the same moment.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    let jitter = RandomState::new().hash_one(failures) % 1000;
    full / 2 + full / 2 * u32::try_from(jitter).expect("below a thousand") / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        assert_eq!(catch_panic(async { panic!("on purpose") }).await, Err(error::panicked()));
        assert_eq!(catch_panic(async { Ok(()) }).await, Ok(()));
    }

    #[test]
    fn backoff_grows_to_a_limit_and_varies() {
        for failures in 1..100 {
            let full = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
            let backoff = backoff(failures);
            assert!((full / 2..=full).contains(&backoff), "{failures}: {backoff:?}");
        }
        let several: std::collections::BTreeSet<Duration> = (0..20).map(|_| backoff(5)).collect();
        assert!(several.len() > 1);
    }
}
