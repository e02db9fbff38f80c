//! The committer: groups queued writes into transactions, commits them durably when due, publishes them and answers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use store::StoreError;

use crate::{
    binary::printable,
    core::Core,
    durability::UnsyncedWrites,
    queue::{GROUP_BYTES_MAX, GROUP_OPS_MAX, WriteJob},
    transaction::{ApplyError, CommittedChanges, Transaction},
    write::{Op, WriteError, WriteOutcome},
};

/// While a tail is full, the committer links this many vectors per new vector.
const DRAINED_PER_NEW_VECTOR: usize = 2;
/// While many slots hold removed vectors, the committer vacuums this many slots per new vector, so that a pass over
/// all slots ends before another 64th of them is removed.
const VACUUMED_PER_NEW_VECTOR: usize = 64;

impl Core {
    /// Commits queued writes until the queue is closed and empty. On return, all of them are durable.
    pub(crate) fn run_committer(&self) {
        let mut unsynced = UnsyncedWrites::new(self.durability);
        // A committer that panicked and continues no longer knows what is not durable.
        self.sync_answered(&mut unsynced);
        while let Some(jobs) = self.queue.take(unsynced.time_left(self.time.elapsed())) {
            self.commit_jobs(jobs, &mut unsynced);
            if unsynced.time_left(self.time.elapsed()).is_some_and(|left| left.is_zero()) {
                self.sync_answered(&mut unsynced);
            }
        }
        self.sync_answered(&mut unsynced);
    }

    /// Syncs writes that were answered before they were durable. If this fails, no caller is waiting for the error:
    /// it is reported by [`Core::read_only_reason`].
    fn sync_answered(&self, unsynced: &mut UnsyncedWrites) {
        let _ = self.sync();
        unsynced.clear();
    }

    /// Makes all commits durable. If this fails, the engine becomes read-only.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let _commit_lock = self.commit_lock.lock();
        self.store.sync().inspect_err(|error| {
            self.enter_read_only(error.to_string());
        })
    }

    fn commit_jobs(&self, jobs: Vec<WriteJob>, unsynced: &mut UnsyncedWrites) {
        let mut ops = Vec::new();
        let mut callbacks = Vec::with_capacity(jobs.len());
        for job in jobs {
            callbacks.push((job.ops.len(), job.done));
            ops.extend(job.ops);
        }
        let mut results = Vec::with_capacity(ops.len());
        let mut rest = &ops[..];
        while !rest.is_empty() {
            let (group, later) = rest.split_at(group_len(rest));
            // A panic must not leave writers waiting forever.
            let committed = catch_unwind(AssertUnwindSafe(|| self.commit(group, unsynced)));
            results.extend(committed.unwrap_or_else(|_| {
                let reason = self.enter_read_only("the committer panicked".to_owned());
                vec![Err(WriteError::ReadOnly { reason }); group.len()]
            }));
            rest = later;
        }
        let mut results = results.into_iter();
        for (ops, done) in callbacks {
            let results = results.by_ref().take(ops).collect();
            if catch_unwind(AssertUnwindSafe(|| done(results))).is_err() {
                self.warn("the callback of a write panicked".to_owned());
            }
        }
    }

    /// Writes one group in one transaction. On return, every operation that did not fail is visible, and durable or
    /// counted in `unsynced`.
    fn commit(&self, ops: &[Op], unsynced: &mut UnsyncedWrites) -> Vec<Result<WriteOutcome, WriteError>> {
        self.apply_backpressure(ops);
        let mut check_disk_space = self.check_disk_space(ops, unsynced);
        if check_disk_space.is_some() && unsynced.bytes() > 0 {
            // Sync while the disk has room for it. Afterwards the free space is exact.
            self.sync_answered(unsynced);
            check_disk_space = self.check_disk_space(ops, unsynced);
        }
        let _commit_lock = self.commit_lock.lock();
        let registry = self.registry();
        let mut refused: Vec<Option<WriteError>> = vec![None; ops.len()];
        let rejection = self.check_memory().or(check_disk_space);
        if let Some(rejection) = rejection {
            // Deletes free space, and the reserve exists for them.
            let growing = ops.iter().zip(&mut refused).filter(|(op, _)| !matches!(op, Op::Delete { .. }));
            for (_, refusal) in growing {
                *refusal = Some(rejection.clone());
            }
        }
        // Repeated without the failing operation each time the store fails on a single operation.
        'transaction: loop {
            if let Some(reason) = self.read_only_reason.get() {
                return failed(ops, refused, |_| WriteError::ReadOnly { reason: reason.clone() });
            }
            let writer = match self.store.write() {
                Ok(writer) => writer,
                Err(error) => return self.fail_group(ops, refused, error),
            };
            let mut transaction = Transaction::new(writer, &registry, self.time.now_ms());
            let mut written = Vec::with_capacity(ops.len());
            for (op, refusal) in ops.iter().zip(&mut refused) {
                if refusal.is_some() {
                    written.push(None);
                    continue;
                }
                match transaction.apply(op) {
                    Ok(result) => written.push(Some(result)),
                    Err(ApplyError::Rejected(error)) => {
                        *refusal = Some(error);
                        written.push(None);
                    }
                    Err(ApplyError::Store(error @ StoreError::Corrupt { .. })) => {
                        let key = printable(op.key());
                        *refusal = Some(WriteError::Store { key, source: Arc::new(error) });
                        continue 'transaction;
                    }
                    Err(ApplyError::Store(error)) => return self.fail_group(ops, refused, error),
                }
            }
            let due = unsynced.is_due(self.time.elapsed());
            match transaction.commit(due) {
                Ok(committed) => self.publish(committed),
                Err(error) => return self.fail_group(ops, refused, error),
            }
            if self.store.is_synced() {
                unsynced.clear();
            } else {
                unsynced.add(ops.iter().map(Op::bytes).sum(), self.time.elapsed());
            }
            let results = written.into_iter().zip(refused);
            return results
                .map(|(written, refused)| match (written, refused) {
                    (Some(written), _) => Ok(written),
                    (None, Some(error)) => Err(error),
                    (None, None) => unreachable!("an operation is written or rejected"),
                })
                .collect();
        }
    }

    /// Why the disk has no room for a group; `None` if it has.
    fn check_disk_space(&self, ops: &[Op], unsynced: &UnsyncedWrites) -> Option<WriteError> {
        let reserve = self.disk_reserve_bytes;
        if reserve == 0 {
            return None;
        }
        let group_bytes = ops.iter().map(Op::bytes).sum::<usize>() + unsynced.bytes();
        // If the free space is unknown, the write itself will fail on a full disk.
        let free = fs4::available_space(&self.data_dir).ok()?;
        let needed = reserve.max(2 * group_bytes as u64);
        (free < needed).then(|| WriteError::Full {
            reason: format!(
                "{} has {} MiB free, and {} MiB are kept in reserve (disk_reserve_mib)",
                self.data_dir.display(),
                free >> 20,
                needed >> 20
            ),
        })
    }

    /// Why there is no memory for a group; `None` if there is. Memory that deletes have freed counts as available.
    fn check_memory(&self) -> Option<WriteError> {
        let max = self.memory_max_bytes;
        let used = || self.registry().all().map(|collection| collection.memory_used() as u64).sum::<u64>();
        (max > 0).then(used).filter(|used| *used >= max).map(|used| WriteError::Memory { used, max })
    }

    /// Makes committed changes visible and wakes the indexers.
    pub(crate) fn publish(&self, committed: Option<CommittedChanges>) {
        if let Some(committed) = committed {
            self.commits.fetch_add(1, Ordering::Relaxed);
            committed.publish();
            self.indexing_wake.notify();
        }
    }

    /// Slows writers down while a tail is full or many vectors are removed: the committer itself links more vectors
    /// than the group brings, and vacuums slots.
    fn apply_backpressure(&self, ops: &[Op]) {
        let count_vectors = |op: &Op| match op {
            // A document may have a vector among its fields.
            Op::Put { vectors, .. } => vectors.len().max(1),
            Op::SetVectors { vectors, .. } => vectors.len(),
            Op::Delete { .. } => 0,
        };
        let new_vectors: usize = ops.iter().map(count_vectors).sum();
        let slots = u32::try_from(VACUUMED_PER_NEW_VECTOR * new_vectors).unwrap_or(u32::MAX);
        for collection in self.registry().all() {
            for index in &collection.indexes {
                if index.tail_len() >= self.tail_max {
                    index.drain(DRAINED_PER_NEW_VECTOR * new_vectors);
                }
                if new_vectors > 0 && index.needs_vacuum() {
                    index.vacuum_step(slots);
                }
            }
        }
    }

    /// Makes the engine read-only and records the reason. The first reason is kept.
    pub(crate) fn enter_read_only(&self, reason: String) -> String {
        let first_reason = self.read_only_reason.get_or_init(|| {
            (self.on_read_only)(&reason);
            reason
        });
        first_reason.clone()
    }

    /// The results of a group on which the store failed: nothing is acknowledged.
    fn fail_group(
        &self,
        ops: &[Op],
        refused: Vec<Option<WriteError>>,
        error: StoreError,
    ) -> Vec<Result<WriteOutcome, WriteError>> {
        if error.is_full() {
            let reason = error.to_string();
            return failed(ops, refused, |_| WriteError::Full { reason: reason.clone() });
        }
        self.latch_failure(&error);
        if let StoreError::Displaced { .. } = error {
            let reason = error.to_string();
            return failed(ops, refused, |_| WriteError::ReadOnly { reason: reason.clone() });
        }
        let source = Arc::new(error);
        failed(ops, refused, |op| WriteError::Store { key: printable(op.key()), source: source.clone() })
    }

    /// Makes the engine read-only after a failed write, until it is opened again. A full disk is an exception:
    /// nothing is in doubt then, and the store accepts writes again once there is room.
    pub(crate) fn latch_failure(&self, error: &StoreError) {
        if !error.is_full() {
            self.enter_read_only(error.to_string());
        }
    }
}

fn failed(
    ops: &[Op],
    refused: Vec<Option<WriteError>>,
    error: impl Fn(&Op) -> WriteError,
) -> Vec<Result<WriteOutcome, WriteError>> {
    let refused = ops.iter().zip(refused);
    refused.map(|(op, refused)| Err(refused.unwrap_or_else(|| error(op)))).collect()
}

/// How many operations go into one transaction, at least one.
fn group_len(ops: &[Op]) -> usize {
    let mut bytes = 0;
    let fitting = ops
        .iter()
        .take(GROUP_OPS_MAX)
        .take_while(|op| {
            bytes += op.bytes();
            bytes <= GROUP_BYTES_MAX
        })
        .count();
    fitting.max(1)
}
