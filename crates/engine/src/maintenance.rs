//! Periodic maintenance: purges expired documents, writes snapshots, trims the change log.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use store::{DocId, StoreError};

use crate::{collection::Collection, core::Core, queue::GROUP_OPS_MAX};

/// How often maintenance runs.
const INTERVAL: Duration = Duration::from_secs(1);
/// Minimum number of changes for a new snapshot.
const CHANGES_MIN: u64 = 10_000;
/// A new snapshot also requires one change per this many documents, so that a growing collection is not written
/// repeatedly.
const DOCUMENTS_PER_CHANGE: u64 = 3;
/// A snapshot preserves the work of linking vectors, so it waits until at most one in this many vectors is unlinked.
const VECTORS_PER_TAIL_VECTOR: usize = 8;
/// A snapshot no longer waits for linking once there are this many times as many changes as required.
const TAIL_WAIT_FACTOR: u64 = 4;
/// A snapshot that is this many changes behind is rewritten even if its collection has not changed: it prevents the
/// change log from being trimmed.
const LAG_MAX: u64 = 100_000;
/// While the engine runs, a snapshot must also be this many changes behind per document of the collection, so that a
/// large collection is not rewritten repeatedly.
const LAG_PER_DOCUMENT: u64 = 4;
/// Changes trimmed per transaction: writers wait for it.
const TRIM_BATCH: u64 = 100_000;

/// Corrupt rows that prevent expired documents from being deleted.
#[derive(Default)]
struct CorruptExpiries {
    /// The expiry and the document of each row.
    rows: HashSet<(u64, DocId)>,
    first_error: Option<StoreError>,
}

impl Core {
    /// Runs maintenance until the engine closes.
    pub(crate) fn run_maintenance(&self) {
        loop {
            let seen = self.maintenance_wake.generation();
            if self.is_closing() {
                return;
            }
            if let Err(error) = self.store.check_in_place() {
                self.enter_read_only(error.to_string());
            }
            if let Err(error) = self.purge_expired() {
                self.warn(format!("expired documents could not be deleted: {error}"));
            }
            self.save(should_snapshot);
            if !self.is_closing() {
                self.maintenance_wake.wait_for(seen, INTERVAL);
            }
        }
    }

    /// Deletes every expired document, in groups like other writes, and returns their number. Skips up to a group of
    /// corrupt rows, and fails with the error of the first after deleting the rest.
    pub(crate) fn purge_expired(&self) -> Result<u64, StoreError> {
        let (mut purged, mut skipped) = (0, CorruptExpiries::default());
        while !self.is_closing() && self.read_only_reason.get().is_none() {
            if !self.time.is_frozen() && self.due_documents(self.time.now_ms(), &mut skipped)?.is_empty() {
                break;
            }
            // While this holds the lock, no expiry changes between this check and the transaction, and time does not
            // follow a clock that was set back: a document that was written after that may expire before a time that was
            // read earlier.
            let _commit_lock = self.commit_lock.lock();
            let now_ms = self.time.now_ms();
            let due = self.due_documents(now_ms, &mut skipped)?;
            if due.is_empty() {
                // Nothing that expired is left, so time may follow a clock that was set back.
                if skipped.first_error.is_none() {
                    self.time.follow_clock(now_ms);
                }
                break;
            }
            let mut current = None;
            let result = self.transact(|transaction| {
                for (expires_at_ms, doc) in &due {
                    current = Some((*expires_at_ms, *doc));
                    transaction.purge(*expires_at_ms, *doc)?;
                }
                current = None;
                Ok(())
            });
            match (result, current) {
                (Ok(()), _) => purged += due.len() as u64,
                // Try again without the corrupt row.
                (Err(error @ StoreError::Corrupt { .. }), Some(row)) => {
                    skipped.rows.insert(row);
                    skipped.first_error.get_or_insert(error);
                }
                (Err(error), _) => return Err(error),
            }
        }
        skipped.first_error.map_or(Ok(purged), Err)
    }

    /// The next group of expired documents, each with its expiry. Skips corrupt rows.
    fn due_documents(
        &self,
        now_ms: u64,
        skipped: &mut CorruptExpiries,
    ) -> Result<Vec<(u64, DocId)>, StoreError> {
        let mut due = Vec::new();
        for row in self.store.read()?.expired(now_ms, GROUP_OPS_MAX)? {
            match row {
                Ok(row) if skipped.rows.contains(&row) => {}
                Ok(row) => due.push(row),
                Err(error) => {
                    skipped.first_error.get_or_insert(error);
                }
            }
        }
        Ok(due)
    }

    /// Writes snapshots of the collections that are `due`, and trims changes that no snapshot needs.
    pub(crate) fn save(&self, due: impl Fn(&Collection) -> bool) {
        let registry = self.registry();
        let mut saved = false;
        for versions in registry.named.values() {
            for collection in versions.all().filter(|collection| due(collection)) {
                let written = self.snapshots.write(collection, || {
                    let last_change = self.store.last_change();
                    self.sync()?;
                    Ok(last_change)
                });
                // If the collection was dropped meanwhile, the drop found no snapshot to remove yet.
                if !self.registry().all().any(|registered| registered.version == collection.version) {
                    self.remove_snapshot(collection.version);
                }
                match written {
                    Ok(_) => saved = true,
                    Err(error) => self.warn(format!(
                        "the snapshot of collection {}, version {}, was not written: {error}",
                        collection.version.id, collection.version.version
                    )),
                }
            }
        }
        let changes_min = if saved { 1 } else { TRIM_BATCH };
        if let Err(error) = self.trim_changes(changes_min, TRIM_BATCH) {
            self.warn(format!("old changes could not be trimmed: {error}"));
        }
    }

    /// Trims changes that no snapshot needs, if there are at least `changes_min`, in transactions of `batch` changes.
    /// While the engine closes, runs only one transaction.
    pub(crate) fn trim_changes(&self, changes_min: u64, batch: u64) -> Result<(), StoreError> {
        if self.read_only_reason.get().is_some() {
            return Ok(());
        }
        let registry = self.registry();
        // A collection without a snapshot is loaded from its documents, so it needs no changes.
        let oldest = registry.all().filter_map(|collection| collection.snapshot_seq()).min();
        let (mut trimmed_to, last_seq) = {
            let reader = self.store.read()?;
            (reader.changes_trimmed_to()?, reader.last_seq()?)
        };
        let unneeded_to = oldest.unwrap_or(last_seq);
        if unneeded_to.saturating_sub(trimmed_to) < changes_min {
            return Ok(());
        }
        while trimmed_to < unneeded_to {
            trimmed_to = unneeded_to.min(trimmed_to + batch);
            let _commit_lock = self.commit_lock.lock();
            let mut writer = self.store.write()?;
            writer.trim_changes(trimmed_to)?;
            writer.commit().inspect_err(|error| self.latch_failure(error))?;
            if self.is_closing() {
                break;
            }
        }
        Ok(())
    }
}

/// Whether a snapshot should be written while the engine runs.
pub(crate) fn should_snapshot(collection: &Collection) -> bool {
    let unsaved = collection.unsaved_changes.load(Ordering::Relaxed);
    let documents = collection.state().ordinals.live().len();
    let required = CHANGES_MIN.max(documents / DOCUMENTS_PER_CHANGE);
    let (tail, vectors) = collection.tail_and_vectors();
    let has_changed = unsaved >= required
        && (tail <= vectors / VECTORS_PER_TAIL_VECTOR || unsaved >= TAIL_WAIT_FACTOR * required);
    has_changed || changes_retained(collection) > LAG_MAX.max(LAG_PER_DOCUMENT * documents)
}

/// Whether a snapshot should be written when the engine closes.
pub(crate) fn is_snapshot_stale(collection: &Collection) -> bool {
    let has_changed = collection.unsaved_changes.load(Ordering::Relaxed) > 0;
    collection.snapshot_seq().is_none() || has_changed || changes_retained(collection) > LAG_MAX
}

/// Upper bound on the changes that are kept only for this collection's snapshot.
fn changes_retained(collection: &Collection) -> u64 {
    collection.snapshot_seq().map_or(0, |seq| collection.state().published.saturating_sub(seq))
}
