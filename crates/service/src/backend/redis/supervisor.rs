//! The task that keeps the connections open and the collections known: it probes, mends, and tries
//! again after a pause that grows and is never quite the same.

use std::{
    hash::{BuildHasher, RandomState},
    sync::mpsc::SyncSender,
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::discovery::Core;
use crate::{Error, call::panicked, sync::Arc};

/// Time between two probes of servers that are well.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Probes between two looks at their collections, which others may change.
const CHECKS_PER_REFRESH: u32 = 10;

/// Shortest and longest pause before trying again.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Looks after the servers until `closing`. Tells `first` when it has tried once.
pub(super) async fn supervise(core: Arc<Core>, closing: CancellationToken, first: SyncSender<()>) {
    let mut first = Some(first);
    let mut failed = 0;
    let mut checks = 0;
    loop {
        let reload = checks % CHECKS_PER_REFRESH == 0 || core.state().is_scanning();
        let checked = core.clone();
        let outcome = tokio::select! {
            () = closing.cancelled() => return,
            outcome = catch_panic(async move { checked.health_check(reload).await }) => outcome,
        };
        let backoff = match outcome {
            Ok(()) => {
                failed = 0;
                CHECK_INTERVAL
            }
            Err(error) => {
                tracing::debug!(%error, "not all of Redis can be asked");
                failed += 1;
                backoff(failed)
            }
        };
        if let Some(first) = first.take() {
            // Whoever opened the store may have stopped waiting.
            let _ = first.send(());
        }
        let woken = async {
            if failed > 0 {
                std::future::pending().await
            } else {
                core.servers.wake_supervisor.notified().await
            }
        };
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(backoff) => checks += 1,
            // Somebody has seen that something is wrong, or done much.
            () = woken => checks = 0,
        }
    }
}

/// What `work` comes to; a panic in it is a failure like others, so that the next attempt is made.
async fn catch_panic(work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Result<(), Error> {
    // Dropped, a set ends its tasks.
    let mut task = JoinSet::new();
    task.spawn(work);
    task.join_next().await.expect("there is one task").unwrap_or_else(|fault| {
        tracing::error!(%fault, "looking after Redis failed; it is tried again");
        Err(panicked())
    })
}

/// The pause after so many failures in a row: twice as long each time, and up to a half of it by
/// chance, so that many clients do not come back at once.
fn backoff(failed: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failed.min(10)).min(BACKOFF_MAX);
    let chance = RandomState::new().hash_one(failed) % 1000;
    full / 2 + full / 2 * u32::try_from(chance).expect("below a thousand") / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_like_others() {
        assert_eq!(catch_panic(async { panic!("on purpose") }).await, Err(panicked()));
        assert_eq!(catch_panic(async { Ok(()) }).await, Ok(()));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        for failed in 1..100 {
            let full = BACKOFF_MIN.saturating_mul(1 << failed.min(10)).min(BACKOFF_MAX);
            let backoff = backoff(failed);
            assert!((full / 2..=full).contains(&backoff), "{failed}: {backoff:?}");
        }
        let several: std::collections::BTreeSet<Duration> = (0..20).map(|_| backoff(5)).collect();
        assert!(several.len() > 1);
    }
}
