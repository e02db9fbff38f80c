//! Documents written and changed: read what stands, embed what is new, commit, and begin again
//! where somebody else was faster.

pub(crate) mod fields;

use std::{collections::HashMap, time::Duration};

use engine::{Expected, Seq};

use crate::{
    Context, Document, Error, ErrorKind, Field, Outcome, Patch, Put, PutResult, Service,
    backend::{ComputedVector, DocumentLookup, Op, TextToEmbed, WriteError, WriteFailure, WriteOutcome},
    call::Call,
    catalog::{CollectionHandle, vector_fields},
    error_mapping,
    limits::DOCUMENTS_MAX,
    models::batches::{EmbeddingPlan, collect_vectors},
    pool::Pool,
    shared::Shared,
    sync::Arc,
};

/// Times a document is read and embedded again because it was changed meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// Documents prepared in one step of a worker.
const PREPARE_MAX: usize = 64;

/// Documents handed to the committer at once.
const GROUP_MAX: usize = 512;

impl Service {
    /// Writes documents, one result each, in order. Unchanged ones (same fields, same end) are
    /// recognised and not embedded again. Two puts of one id in a call happen one after the other.
    pub async fn put(
        &self,
        cx: &Context,
        collection: &str,
        puts: Vec<Put>,
    ) -> Result<Vec<Result<PutResult, Error>>, Error> {
        let call = self.shared().begin(cx)?;
        if puts.len() > DOCUMENTS_MAX {
            return Err(Error::invalid(
                "too-many-documents",
                format!("{} documents in one call; at most {DOCUMENTS_MAX} are taken", puts.len()),
            ));
        }
        let collection = self.shared().resolve(Some(collection))?;
        self.write(&call, &collection, puts.into_iter().map(Change::Put).collect()).await
    }

    /// Writes a document in place of the one that stands under its id, whichever that is; where there is
    /// none it is `NotFound`. What `put` expects besides is expected too.
    pub async fn replace(&self, cx: &Context, collection: &str, put: Put) -> Result<PutResult, Error> {
        self.change(cx, collection, Change::Replace(put)).await
    }

    /// Changes some fields of a document (or removes them), embedding again what changed.
    pub async fn patch(&self, cx: &Context, collection: &str, patch: Patch) -> Result<PutResult, Error> {
        self.change(cx, collection, Change::Patch(patch)).await
    }

    async fn change(&self, cx: &Context, collection: &str, change: Change) -> Result<PutResult, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(collection))?;
        let mut results = self.write(&call, &collection, vec![change]).await?;
        results.pop().expect("one change, one result")
    }

    pub(crate) async fn write(
        &self,
        call: &Call,
        collection: &Arc<CollectionHandle>,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<PutResult, Error>>, Error> {
        let shared = self.shared();
        let writing = Writing { shared, call, known: collection, changes: changes.into() };
        let results = writing.run().await?;
        for result in results.iter().flatten() {
            shared.meter.wrote(result.outcome);
        }
        shared.meter.write_duration(call.elapsed());
        Ok(results)
    }
}

/// One change of one document.
pub(crate) enum Change {
    Put(Put),
    /// A put in place of what stands.
    Replace(Put),
    Patch(Patch),
}

impl Change {
    fn id(&self) -> &str {
        match self {
            Change::Put(put) | Change::Replace(put) => &put.id,
            Change::Patch(patch) => &patch.id,
        }
    }

    /// How many fields it names.
    fn named(&self) -> usize {
        match self {
            Change::Put(put) | Change::Replace(put) => put.fields.len(),
            Change::Patch(patch) => patch.set.len() + patch.remove.len(),
        }
    }

    fn expected(&self) -> Expected {
        match self {
            Change::Put(put) | Change::Replace(put) => put.expected,
            Change::Patch(patch) => patch.expected,
        }
    }
}

/// A change as it would be committed, but for the texts still to be embedded.
struct Ready {
    op: Op,
    texts: Vec<TextToEmbed>,
    truncated: bool,
}

/// What a look at the document as it stands says of a change.
enum Prepared {
    /// Nothing is to be written.
    Done(Result<PutResult, Error>),
    Write(Box<Ready>),
}

/// The writes of one call.
struct Writing<'c> {
    shared: &'c Arc<Shared>,
    call: &'c Call,
    known: &'c Arc<CollectionHandle>,
    changes: Arc<[Change]>,
}

type Results = Vec<Option<Result<PutResult, Error>>>;

impl Writing<'_> {
    async fn run(&self) -> Result<Vec<Result<PutResult, Error>>, Error> {
        let mut results: Results = self.changes.iter().map(|_| None).collect();
        for mut open in rounds(&self.changes) {
            for attempt in 0..ATTEMPTS_MAX {
                if open.is_empty() {
                    break;
                }
                // A single document waits its turn, and so does who was overtaken: of many
                // writers of one document each gets on. A large batch is not worth the wait.
                let _turns = if attempt > 0 || self.changes.len() == 1 {
                    let ids = open.iter().map(|position| self.changes[*position].id());
                    self.call.within(self.shared.key_locks.lock(ids)).await?
                } else {
                    Vec::new()
                };
                open = self.attempt(open, &mut results).await?;
            }
            for position in open {
                results[position] = Some(Err(contended(self.changes[position].id())));
            }
        }
        Ok(results.into_iter().map(|result| result.expect("every change came to an end")).collect())
    }

    /// Tries the changes at these positions once; returns those to be tried again.
    async fn attempt(&self, positions: Vec<usize>, results: &mut Results) -> Result<Vec<usize>, Error> {
        let mut ready = Vec::with_capacity(positions.len());
        for (position, prepared) in self.prepare(&positions).await? {
            match prepared {
                Prepared::Done(result) => results[position] = Some(result),
                Prepared::Write(write) => ready.push((position, *write)),
            }
        }
        self.embed(&mut ready, results).await?;
        self.commit(ready, results).await
    }

    async fn prepare(&self, positions: &[usize]) -> Result<Vec<(usize, Prepared)>, Error> {
        let standing = match self.shared.backend.local_lookup() {
            Some(standing) => standing,
            None => {
                let ids = positions.iter().map(|position| self.changes[*position].id());
                let keys = ids.flat_map(|id| self.known.keys(id)).collect();
                self.shared.backend.prefetch(self.call, keys).await?
            }
        };
        let steps = positions.chunks(PREPARE_MAX).map(|positions| {
            let (shared, known, changes) = (self.shared.clone(), self.known.clone(), self.changes.clone());
            let (positions, standing) = (positions.to_vec(), standing.clone());
            move |_waited: Duration| {
                let prepare = |position| {
                    let prepared = prepare(&shared, &known, &standing, &changes[position]);
                    (position, prepared.unwrap_or_else(|error| Prepared::Done(Err(error))))
                };
                Ok(positions.into_iter().map(prepare).collect::<Vec<_>>())
            }
        });
        let pending = self.shared.workers.push_all(Pool::Ingest, self.call.job_context(), steps)?;
        let mut prepared = Vec::with_capacity(positions.len());
        for answer in pending {
            prepared.extend(self.call.wait(answer).await?);
        }
        Ok(prepared)
    }

    /// Adds to each change the vectors it lacks; takes out those whose texts cannot be embedded.
    async fn embed(&self, ready: &mut Vec<(usize, Ready)>, results: &mut Results) -> Result<(), Error> {
        let texts: Vec<(String, String)> = ready
            .iter_mut()
            .flat_map(|(_, write)| &mut write.texts)
            .map(|text| (text.model.clone(), std::mem::take(&mut text.text)))
            .collect();
        let (distinct, batches) = EmbeddingPlan::new(texts).into_parts();
        let steps = batches.into_iter().map(|batch| batch.into_job(&self.shared.models));
        let pending = self.shared.workers.push_all(Pool::Ingest, self.call.job_context(), steps)?;
        let mut done = Vec::with_capacity(pending.len());
        for answer in pending {
            done.push(self.call.wait(answer).await?);
        }
        let mut embedded = collect_vectors(&distinct, done).into_iter();
        ready.retain_mut(|(position, write)| {
            let Op::Put { vectors, .. } = &mut write.op else { unreachable!("only puts are prepared") };
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

    /// Commits, group by group; returns the changes that have to be tried again.
    async fn commit(&self, ready: Vec<(usize, Ready)>, results: &mut Results) -> Result<Vec<usize>, Error> {
        let mut again = Vec::new();
        let mut ready = ready.into_iter().peekable();
        while ready.peek().is_some() {
            let (places, ops): (Vec<(usize, bool)>, Vec<Op>) = ready
                .by_ref()
                .take(GROUP_MAX)
                .map(|(position, write)| ((position, write.truncated), write.op))
                .unzip();
            let written = match self.shared.backend.commit(self.call, ops).await {
                Ok(written) => written,
                Err(error) if error.kind == ErrorKind::Overloaded => {
                    for (position, _) in places {
                        results[position] = Some(Err(error.clone()));
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            for ((position, truncated), written) in places.into_iter().zip(written) {
                let change = &self.changes[position];
                match written {
                    Ok(WriteOutcome { seq, existed }) => {
                        let outcome = if existed { Outcome::Updated } else { Outcome::Created };
                        results[position] =
                            Some(Ok(PutResult { id: change.id().to_owned(), outcome, seq, truncated }));
                    }
                    Err(WriteFailure::VectorsMissing(_)) => again.push(position),
                    Err(WriteFailure::Conflict(_)) if change.expected() == Expected::Any => {
                        again.push(position)
                    }
                    Err(refused) => results[position] = Some(Err(refused.into_error())),
                }
            }
        }
        Ok(again)
    }
}

/// Positions in order, so divided that no id comes twice in one round.
fn rounds(changes: &[Change]) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut times: HashMap<&str, usize> = HashMap::with_capacity(changes.len());
    for (position, change) in changes.iter().enumerate() {
        let round = times.entry(change.id()).or_default();
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(position);
        *round += 1;
    }
    rounds
}

/// Looks at the document as it stands and works out what the change comes to.
fn prepare(
    shared: &Shared,
    known: &CollectionHandle,
    standing: &DocumentLookup,
    change: &Change,
) -> Result<Prepared, Error> {
    fields::check_id(change.id())?;
    fields::check_count(change.named())?;
    let keys: Vec<Vec<u8>> = known.keys(change.id()).collect();
    let current = standing.find(&keys)?;
    let key = current.as_ref().map_or_else(|| known.key(change.id()), |document| document.key.to_vec());
    check_expected(change.expected(), current.as_ref())?;
    let (new_fields, expires_at_ms) = match (change, &current) {
        (Change::Replace(_) | Change::Patch(_), None) => return Err(not_found(known, change.id())),
        (Change::Put(put) | Change::Replace(put), _) => {
            (fields::encode(&known.schema, &put.fields)?, expiry(shared, put.ttl)?)
        }
        (Change::Patch(patch), Some(current)) => {
            let set = fields::encode(&known.schema, &patch.set)?;
            let expires_at_ms = match patch.ttl {
                None => current.expires_at_ms,
                Some(ttl) => expiry(shared, ttl)?,
            };
            (fields::merge(&current.fields, set, &patch.remove), expires_at_ms)
        }
    };

    check_embeddable(known, &new_fields)?;
    let mut texts = shared.backend.texts_to_embed(&key, &new_fields);
    let mut vectors = Vec::new();
    if let Some(current) = &current {
        vectors = reusable(shared, standing, current, &texts)?;
        texts.retain(|text| !vectors.iter().any(|vector| is_of(vector, text)));
        let unchanged = texts.is_empty()
            && current.expires_at_ms == expires_at_ms
            && !(expires_at_ms.is_none() && shared.catalog().ends_by_default(&key))
            && fields::same(&current.fields, &new_fields);
        if unchanged {
            let id = change.id().to_owned();
            let result = PutResult { id, outcome: Outcome::Unchanged, seq: current.seq, truncated: false };
            return Ok(Prepared::Done(Ok(result)));
        }
    }
    let depends_on_current = !matches!(change, Change::Put(_)) || !vectors.is_empty();
    let expected = match (change.expected(), &current) {
        (Expected::Any, Some(current)) if depends_on_current => Expected::Seq(current.seq),
        (expected, _) => expected,
    };
    let op = Op::Put { key, fields: new_fields, expires_at_ms, vectors, expected };
    match shared.backend.validate(&op) {
        // A conflict shows again at the commit, and the vectors are still to come.
        Ok(()) | Err(WriteError::VectorsMissing { .. } | WriteError::Conflict { .. }) => {}
        Err(error) => return Err(error_mapping::write(&error)),
    }
    Ok(Prepared::Write(Box::new(Ready { op, texts, truncated: false })))
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
        return Err(Error::invalid("ttl", "a document's life must be at least one millisecond").at("ttl_s"));
    }
    Ok(Some(shared.backend.now_ms().saturating_add(ms)))
}

/// Refuses a document the collection would embed but that gives it neither text nor vector.
fn check_embeddable(known: &CollectionHandle, fields: &[Field]) -> Result<(), Error> {
    let value =
        |name: &str| fields.iter().find(|field| *field.name == *name.as_bytes()).map(|field| &field.value);
    for (name, vector) in vector_fields(&known.schema) {
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
                "there is no text to embed: {} must not all be empty, or the document must bring a vector in {name:?}",
                sources.join(" and ")
            ),
        )
        .at(embed.fields.first().map_or(name, String::as_str)));
    }
    Ok(())
}

/// Computed vectors of the document as it stands that are still right: the same text, embedded
/// by the model as it is loaded now.
fn reusable(
    shared: &Shared,
    standing: &DocumentLookup,
    current: &Document,
    texts: &[TextToEmbed],
) -> Result<Vec<ComputedVector>, Error> {
    let old = shared.backend.texts_to_embed(&current.key, &current.fields);
    let same: Vec<&TextToEmbed> = texts.iter().filter(|text| old.contains(text)).collect();
    if same.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = shared.catalog();
    let mut reusable = Vec::new();
    for known in
        catalog.collections().filter(|known| same.iter().any(|text| text.collection == known.version))
    {
        for vector in standing.vectors(known, &current.key)? {
            let Some(text) = same.iter().find(|text| is_of(&vector, text)) else { continue };
            if shared.models.get(&text.model).is_ok_and(|model| model.fingerprint().0 == vector.model) {
                reusable.push(vector);
            }
        }
    }
    Ok(reusable)
}

fn is_of(vector: &ComputedVector, text: &TextToEmbed) -> bool {
    (vector.collection, vector.field) == (text.collection, text.field)
}

pub(crate) fn not_found(known: &CollectionHandle, id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "document-not-found",
        format!("there is no document {id:?} in collection {:?}", known.name),
    )
}

fn contended(id: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "contended",
        format!(
            "document {id:?} was changed by others {ATTEMPTS_MAX} times while it was being written; try again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_given_twice_is_written_in_turn() {
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
