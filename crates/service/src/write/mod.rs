//! Writing documents: read the stored version, embed new texts, commit, and retry after a conflict.

pub(crate) mod fields;

use std::{collections::HashMap, time::Duration};

use engine::{Expected, Seq};

use crate::{
    Context, Document, Error, ErrorKind, Field, Outcome, Patch, Put, PutResult, Service,
    backend::{ComputedVector, DocumentLookup, Op, TextToEmbed, WriteError, WriteFailure, WriteOutcome},
    call::Call,
    catalog::{CollectionHandle, vector_fields},
    error_mapping,
    limits::EXPIRES_AT_MS_MAX,
    models::batches::{EmbeddingPlan, collect_vectors},
    pool::Pool,
    shared::Shared,
    sync::Arc,
};

/// The maximum number of attempts at a write that conflicts with concurrent writes.
const ATTEMPTS_MAX: usize = 16;

/// Documents prepared per worker job.
const PREPARE_MAX: usize = 64;

/// Documents committed together.
const GROUP_MAX: usize = 512;

impl Service {
    /// Writes documents and returns one result per document, in order. Unchanged documents (equal fields and
    /// expiry) are detected and not embedded again. Several puts of one id are applied in order.
    pub async fn put(
        &self,
        cx: &Context,
        collection: &str,
        puts: Vec<Put>,
    ) -> Result<Vec<Result<PutResult, Error>>, Error> {
        let call = self.shared().begin(cx)?;
        fields::check_documents(puts.len())?;
        let collection = self.shared().resolve(Some(collection))?;
        self.write(&call, &collection, puts.into_iter().map(Change::Put).collect()).await
    }

    /// Replaces an existing document; fails with `NotFound` if there is none. The precondition of `put` applies
    /// as well.
    pub async fn replace(&self, cx: &Context, collection: &str, put: Put) -> Result<PutResult, Error> {
        self.change(cx, collection, Change::Replace(put)).await
    }

    /// Sets or removes some fields of a document, and embeds the changed texts.
    pub async fn patch(&self, cx: &Context, collection: &str, patch: Patch) -> Result<PutResult, Error> {
        self.change(cx, collection, Change::Patch(patch)).await
    }

    async fn change(&self, cx: &Context, collection: &str, change: Change) -> Result<PutResult, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(collection))?;
        let mut results = self.write(&call, &collection, vec![change]).await?;
        results.pop().expect("there is one result per change")
    }

    pub(crate) async fn write(
        &self,
        call: &Call,
        collection: &Arc<CollectionHandle>,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<PutResult, Error>>, Error> {
        let shared = self.shared();
        let batch = WriteBatch { shared, call, collection, changes: changes.into() };
        let results = batch.run().await?;
        for result in results.iter().flatten() {
            shared.meter.wrote(result.outcome);
        }
        shared.meter.write_duration(call.elapsed());
        Ok(results)
    }
}

/// One change to one document.
pub(crate) enum Change {
    Put(Put),
    /// A put that requires the document to exist.
    Replace(Put),
    Patch(Patch),
    /// A patch that creates the document if there is none.
    Upsert(Patch),
}

impl Change {
    fn id(&self) -> &str {
        match self {
            Change::Put(put) | Change::Replace(put) => &put.id,
            Change::Patch(patch) | Change::Upsert(patch) => &patch.id,
        }
    }

    /// The number of fields that the change names.
    fn field_count(&self) -> usize {
        match self {
            Change::Put(put) | Change::Replace(put) => put.fields.len(),
            Change::Patch(patch) | Change::Upsert(patch) => patch.set.len() + patch.remove.len(),
        }
    }

    fn expected(&self) -> Expected {
        match self {
            Change::Put(put) | Change::Replace(put) => put.expected,
            Change::Patch(patch) | Change::Upsert(patch) => patch.expected,
        }
    }
}

/// A change that is ready to commit once its texts are embedded.
struct PendingWrite {
    op: Op,
    texts: Vec<TextToEmbed>,
    truncated: bool,
}

/// The outcome of comparing a change with the stored document.
enum PreparedChange {
    /// There is nothing to write.
    Done(Result<PutResult, Error>),
    Write(Box<PendingWrite>),
}

/// The writes of one call.
struct WriteBatch<'c> {
    shared: &'c Arc<Shared>,
    call: &'c Call,
    collection: &'c Arc<CollectionHandle>,
    changes: Arc<[Change]>,
}

/// The results so far, by position of the change.
type PartialResults = Vec<Option<Result<PutResult, Error>>>;

impl WriteBatch<'_> {
    async fn run(&self) -> Result<Vec<Result<PutResult, Error>>, Error> {
        let mut results: PartialResults = self.changes.iter().map(|_| None).collect();
        for mut pending in rounds(&self.changes) {
            for attempt in 0..ATTEMPTS_MAX {
                if pending.is_empty() {
                    break;
                }
                // Single writes and retries take the key locks, so that each of many concurrent writers of one document
                // makes progress. The first attempt of a larger batch does not: waiting would cost more than a retry.
                let _guards = if attempt > 0 || self.changes.len() == 1 {
                    let ids = pending.iter().map(|position| self.changes[*position].id());
                    self.call.within(self.shared.key_locks.lock(ids)).await?
                } else {
                    Vec::new()
                };
                pending = self.attempt(pending, &mut results).await?;
            }
            for position in pending {
                results[position] = Some(Err(contended(self.changes[position].id())));
            }
        }
        Ok(results.into_iter().map(|result| result.expect("every change has a result")).collect())
    }

    /// Attempts the changes at these positions once; returns the positions to retry.
    async fn attempt(
        &self,
        positions: Vec<usize>,
        results: &mut PartialResults,
    ) -> Result<Vec<usize>, Error> {
        let mut writes = Vec::with_capacity(positions.len());
        for (position, prepared) in self.prepare(&positions).await? {
            match prepared {
                PreparedChange::Done(result) => results[position] = Some(result),
                PreparedChange::Write(write) => writes.push((position, *write)),
            }
        }
        self.embed(&mut writes, results).await?;
        self.commit(writes, results).await
    }

    async fn prepare(&self, positions: &[usize]) -> Result<Vec<(usize, PreparedChange)>, Error> {
        let lookup = match self.shared.backend.local_lookup() {
            Some(lookup) => lookup,
            None => {
                let ids = positions.iter().map(|position| self.changes[*position].id());
                let keys = ids.flat_map(|id| self.collection.keys(id)).collect();
                self.shared.backend.prefetch(self.call, keys).await?
            }
        };
        let jobs = positions.chunks(PREPARE_MAX).map(|positions| {
            let (shared, collection, changes) =
                (self.shared.clone(), self.collection.clone(), self.changes.clone());
            let (positions, lookup) = (positions.to_vec(), lookup.clone());
            move |_waited: Duration| {
                let prepare = |position| {
                    let prepared = prepare(&shared, &collection, &lookup, &changes[position]);
                    (position, prepared.unwrap_or_else(|error| PreparedChange::Done(Err(error))))
                };
                Ok(positions.into_iter().map(prepare).collect::<Vec<_>>())
            }
        });
        let pending = self.shared.workers.push_all(Pool::Ingest, self.call.job_context(), jobs)?;
        let mut prepared = Vec::with_capacity(positions.len());
        for response in pending {
            prepared.extend(self.call.wait(response).await?);
        }
        Ok(prepared)
    }

    /// Adds the missing vectors to each write; removes the writes whose texts cannot be embedded.
    async fn embed(
        &self,
        writes: &mut Vec<(usize, PendingWrite)>,
        results: &mut PartialResults,
    ) -> Result<(), Error> {
        let texts: Vec<(String, String)> = writes
            .iter_mut()
            .flat_map(|(_, write)| &mut write.texts)
            .map(|text| (text.model.clone(), std::mem::take(&mut text.text)))
            .collect();
        let (distinct, batches) = EmbeddingPlan::new(texts).into_parts();
        let jobs = batches.into_iter().map(|batch| batch.into_job(&self.shared.models));
        let pending = self.shared.workers.push_all(Pool::Ingest, self.call.job_context(), jobs)?;
        let mut done = Vec::with_capacity(pending.len());
        for response in pending {
            done.push(self.call.wait(response).await?);
        }
        let mut embedded = collect_vectors(&distinct, done).into_iter();
        writes.retain_mut(|(position, write)| {
            let Op::Put { vectors, .. } = &mut write.op else {
                unreachable!("every prepared write is a put")
            };
            let mut failure = None;
            for (text, embedded) in write.texts.iter().zip(&mut embedded) {
                match embedded {
                    Ok(embedded) => {
                        write.truncated |= embedded.truncated;
                        vectors.push(embedded.vector_of(text));
                    }
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) => {
                    results[*position] = Some(Err(error));
                    false
                }
                None => true,
            }
        });
        Ok(())
    }

    /// Commits in groups; returns the positions of the changes to retry.
    async fn commit(
        &self,
        writes: Vec<(usize, PendingWrite)>,
        results: &mut PartialResults,
    ) -> Result<Vec<usize>, Error> {
        let mut retries = Vec::new();
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let (targets, ops): (Vec<(usize, bool)>, Vec<Op>) = writes
                .by_ref()
                .take(GROUP_MAX)
                .map(|(position, write)| ((position, write.truncated), write.op))
                .unzip();
            let written = match self.shared.backend.commit(self.call, ops).await {
                Ok(written) => written,
                Err(error) if error.kind == ErrorKind::Overloaded => {
                    for (position, _) in targets {
                        results[position] = Some(Err(error.clone()));
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            for ((position, truncated), written) in targets.into_iter().zip(written) {
                let change = &self.changes[position];
                match written {
                    Ok(WriteOutcome { seq, existed }) => {
                        let outcome = if existed { Outcome::Updated } else { Outcome::Created };
                        results[position] =
                            Some(Ok(PutResult { id: change.id().to_owned(), outcome, seq, truncated }));
                    }
                    Err(WriteFailure::VectorsMissing(_)) => retries.push(position),
                    Err(WriteFailure::Conflict(_)) if change.expected() == Expected::Any => {
                        retries.push(position)
                    }
                    Err(failure) => results[position] = Some(Err(failure.into_error())),
                }
            }
        }
        Ok(retries)
    }
}

/// Divides the positions into rounds, in order, such that no round contains an id twice.
fn rounds(changes: &[Change]) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut next_rounds: HashMap<&str, usize> = HashMap::with_capacity(changes.len());
    for (position, change) in changes.iter().enumerate() {
        let round = next_rounds.entry(change.id()).or_default();
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(position);
        *round += 1;
    }
    rounds
}

/// Reads the stored document and computes the write that the change requires.
fn prepare(
    shared: &Shared,
    collection: &CollectionHandle,
    lookup: &DocumentLookup,
    change: &Change,
) -> Result<PreparedChange, Error> {
    fields::check_id(change.id())?;
    fields::check_count(change.field_count())?;
    let keys: Vec<Vec<u8>> = collection.keys(change.id()).collect();
    let current = lookup.find(&keys)?;
    let key = current.as_ref().map_or_else(|| collection.key(change.id()), |document| document.key.to_vec());
    check_expected(change.expected(), current.as_ref())?;
    let (new_fields, expires_at_ms) = match (change, &current) {
        (Change::Replace(_) | Change::Patch(_), None) => return Err(not_found(collection, change.id())),
        (Change::Put(put) | Change::Replace(put), _) => {
            (fields::encode(&collection.schema, &put.fields)?, expiry(shared, put.ttl)?)
        }
        (Change::Upsert(patch), None) => {
            (fields::encode(&collection.schema, &patch.set)?, expiry(shared, patch.ttl.flatten())?)
        }
        (Change::Patch(patch) | Change::Upsert(patch), Some(current)) => {
            let set = fields::encode(&collection.schema, &patch.set)?;
            let expires_at_ms = match patch.ttl {
                None => current.expires_at_ms,
                Some(ttl) => expiry(shared, ttl)?,
            };
            (fields::merge(&current.fields, set, &patch.remove), expires_at_ms)
        }
    };

    check_embeddable(collection, &new_fields)?;
    let mut texts = shared.backend.texts_to_embed(&key, &new_fields);
    let mut vectors = Vec::new();
    if let Some(current) = &current {
        vectors = reusable(shared, lookup, current, &texts)?;
        texts.retain(|text| !vectors.iter().any(|vector| vector_is_for(vector, text)));
        let unchanged = texts.is_empty()
            && current.expires_at_ms == expires_at_ms
            && !(expires_at_ms.is_none() && shared.catalog().has_default_ttl(&key))
            && fields::same(&current.fields, &new_fields);
        if unchanged {
            let id = change.id().to_owned();
            let result = PutResult { id, outcome: Outcome::Unchanged, seq: current.seq, truncated: false };
            return Ok(PreparedChange::Done(Ok(result)));
        }
    }
    let depends_on_current = !matches!(change, Change::Put(_)) || !vectors.is_empty();
    let expected = match (change.expected(), &current) {
        (Expected::Any, Some(current)) if depends_on_current => Expected::Seq(current.seq),
        (Expected::Any, None) if depends_on_current => Expected::Absent,
        (expected, _) => expected,
    };
    let op = Op::Put { key, fields: new_fields, expires_at_ms, vectors, expected };
    match shared.backend.validate(&op) {
        // The commit checks for conflicts again, and the vectors are not computed yet.
        Ok(()) | Err(WriteError::VectorsMissing { .. } | WriteError::Conflict { .. }) => {}
        Err(error) => return Err(error_mapping::write(&error)),
    }
    Ok(PreparedChange::Write(Box::new(PendingWrite { op, texts, truncated: false })))
}

fn check_expected(expected: Expected, current: Option<&Document>) -> Result<(), Error> {
    let found: Option<Seq> = current.map(|document| document.seq);
    let holds = match expected {
        Expected::Any => true,
        Expected::Absent => found.is_none(),
        Expected::Seq(seq) => found == Some(seq),
    };
    if holds { Ok(()) } else { Err(error_mapping::write(&WriteError::Conflict { expected, found })) }
}

fn expiry(shared: &Shared, ttl: Option<Duration>) -> Result<Option<u64>, Error> {
    let Some(ttl) = ttl else { return Ok(None) };
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return Err(Error::invalid("ttl", "the TTL must be at least one millisecond").at("ttl_s"));
    }
    let expires_at_ms = shared.backend.now_ms().saturating_add(ms);
    if expires_at_ms > EXPIRES_AT_MS_MAX {
        return Err(Error::invalid("ttl", "the TTL ends after the year 9999: shorten it, or leave it out")
            .at("ttl_s"));
    }
    Ok(Some(expires_at_ms))
}

/// Rejects a document with neither text nor vector for an embedded field of the collection.
fn check_embeddable(collection: &CollectionHandle, fields: &[Field]) -> Result<(), Error> {
    let value =
        |name: &str| fields.iter().find(|field| *field.name == *name.as_bytes()).map(|field| &field.value);
    for (name, vector) in vector_fields(&collection.schema) {
        let Some(embed) = &vector.embed else { continue };
        let is_text = |source: &String| {
            value(source).is_some_and(|value| !String::from_utf8_lossy(value).trim().is_empty())
        };
        if value(name).is_some() || embed.fields.iter().any(is_text) {
            continue;
        }
        let sources: Vec<String> = embed.fields.iter().map(|source| format!("{source:?}")).collect();
        return Err(Error::invalid(
            "text-empty",
            format!(
                "there is no text to embed: set one of {} to a text, or give a vector in {name:?}",
                sources.join(", ")
            ),
        )
        .at(embed.fields.first().map_or(name, String::as_str)));
    }
    Ok(())
}

/// The computed vectors of the stored document that remain valid: those of an unchanged text, computed by the
/// loaded model.
fn reusable(
    shared: &Shared,
    lookup: &DocumentLookup,
    current: &Document,
    texts: &[TextToEmbed],
) -> Result<Vec<ComputedVector>, Error> {
    let old_texts = shared.backend.texts_to_embed(&current.key, &current.fields);
    let unchanged: Vec<&TextToEmbed> = texts.iter().filter(|text| old_texts.contains(text)).collect();
    if unchanged.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = shared.catalog();
    let mut reusable = Vec::new();
    let affected = catalog
        .collections()
        .filter(|collection| unchanged.iter().any(|text| text.collection == collection.version));
    for collection in affected {
        for vector in lookup.vectors(collection, &current.key)? {
            let Some(text) = unchanged.iter().find(|text| vector_is_for(&vector, text)) else { continue };
            if shared.models.get(&text.model).is_ok_and(|model| model.fingerprint().0 == vector.model) {
                reusable.push(vector);
            }
        }
    }
    Ok(reusable)
}

fn vector_is_for(vector: &ComputedVector, text: &TextToEmbed) -> bool {
    (vector.collection, vector.field) == (text.collection, text.field)
}

pub(crate) fn not_found(collection: &CollectionHandle, id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "document-not-found",
        format!("there is no document {id:?} in collection {:?}", collection.name),
    )
}

fn contended(id: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "contended",
        format!(
            "document {id:?} was changed concurrently during all {ATTEMPTS_MAX} attempts to write it; try again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_one_id_go_into_successive_rounds() {
        let changes: Vec<Change> = ["a", "b", "a", "c", "a", "b"]
            .into_iter()
            .map(|id| {
                Change::Put(Put { id: id.to_owned(), fields: vec![], ttl: None, expected: Expected::Any })
            })
            .collect();
        assert_eq!(rounds(&changes), [vec![0, 1, 3], vec![2, 5], vec![4]]);
        assert!(rounds(&[]).is_empty());
    }
}
