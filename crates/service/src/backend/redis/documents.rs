//! Reading and writing documents.

use std::{collections::HashMap, time::Instant};

use engine::{Expected, encode_vector};
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Pipeline, Value};

use super::{
    ComputedVector, Document, Error, Field, Op, PrefetchedDocuments, Redis, WriteError, WriteFailure,
    WriteOutcome, WriteResults,
    document::{self, content_hash},
    error,
    node::{Node, PIPELINE_MAX},
    script::{WriteReply, parse_reply},
    servers::{KeyGroup, Shard},
    state::CachedState,
};
use crate::{
    ErrorKind, Seq,
    sync::{Arc, Ordering},
};

/// Bytes per pipeline.
const PIPELINE_BYTES_MAX: usize = 4 << 20;

/// Number of writes after which the indexes are checked for failures.
const REFRESH_AFTER_WRITES: usize = 256;

/// A write whose reply is awaited.
struct SentWrite {
    expected: Expected,
    /// The sequence number of the content it writes.
    seq: Seq,
}

/// The writes of one pipeline.
struct WritePipeline {
    writes: Vec<SentWrite>,
    commands: Pipeline,
    bytes: usize,
}

impl Redis {
    /// The document under the first of these keys that exists.
    pub(in crate::backend) async fn get_first(&self, keys: Vec<Vec<u8>>) -> Result<Option<Document>, Error> {
        let document = self.get_hashes(&keys).await?.into_iter().flatten().next();
        Ok(document.map(|document| self.state().split_vectors(document).0))
    }

    /// The documents under these keys, with their computed vectors apart.
    pub(in crate::backend) async fn prefetch(
        &self,
        keys: Vec<Vec<u8>>,
    ) -> Result<PrefetchedDocuments, Error> {
        let state = self.state();
        let mut documents = HashMap::with_capacity(keys.len());
        for document in self.get_hashes(&keys).await?.into_iter().flatten() {
            let (document, vectors) = state.split_vectors(document);
            documents.insert(document.key.to_vec(), (document, vectors));
        }
        Ok(documents)
    }

    /// The hashes under these keys, unchanged; `None` for keys that hold no hash.
    pub(super) async fn get_hashes(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Document>>, Error> {
        let (groups, unserved) = self.servers.map().group_by_shard(keys.iter().map(Vec::as_slice));
        if let Some((_, error)) = unserved.into_iter().next() {
            return Err(error);
        }
        let read =
            try_join_all(groups.iter().map(|(shard, positions)| self.get_hashes_on(shard, keys, positions)))
                .await?;
        let mut documents: Vec<Option<Document>> = keys.iter().map(|_| None).collect();
        for ((_, positions), read) in groups.iter().zip(read) {
            for (position, document) in positions.iter().zip(read) {
                documents[*position] = document;
            }
        }
        Ok(documents)
    }

    /// The hashes at these positions of `keys`, all of which one shard holds.
    async fn get_hashes_on(
        &self,
        shard: &Shard,
        keys: &[Vec<u8>],
        positions: &[usize],
    ) -> Result<Vec<Option<Document>>, Error> {
        let mut documents = Vec::with_capacity(positions.len());
        for positions in positions.chunks(PIPELINE_MAX / 2) {
            let mut pipeline = Pipeline::with_capacity(2 * positions.len());
            for position in positions {
                pipeline.cmd("HGETALL").arg(&keys[*position]).cmd("PEXPIRETIME").arg(&keys[*position]);
            }
            let sent = self.servers.send_pipeline(&shard.primary, &pipeline, 0, 0).await;
            let mut replies = sent.map_err(|error| shard.with_shard(error))?.into_iter();
            for position in positions {
                let mut next = || replies.next().expect("as many replies as commands");
                let (hash, expiry) = (next()?, next()?);
                documents.push(match document::parse(&keys[*position], hash, expiry) {
                    // The key holds another type.
                    Err(error) if error.kind == ErrorKind::Conflict => None,
                    read => read.map_err(|error| shard.with_shard(error))?,
                });
            }
        }
        Ok(documents)
    }

    /// Executes these writes, per shard in consecutive pipelines; returns a result per write.
    pub(in crate::backend) async fn write(&self, ops: Vec<Op>) -> Result<WriteResults, Error> {
        let state = self.state();
        let now_ms = self.clock.now_ms();
        let refresh = ops.len() >= REFRESH_AFTER_WRITES;
        let (groups, unserved) = self.servers.map().group_by_shard(ops.iter().map(key));
        let write_to_shard = |(shard, positions): &KeyGroup| {
            self.write_on(shard.clone(), &state, &ops, positions.clone(), now_ms)
        };
        let written = join_all(groups.iter().map(write_to_shard)).await;
        let mut results: Vec<Option<Result<WriteOutcome, WriteFailure>>> = ops.iter().map(|_| None).collect();
        for ((_, positions), written) in groups.iter().zip(written) {
            for (position, result) in positions.iter().zip(written) {
                results[*position] = Some(result);
            }
        }
        for (position, error) in unserved {
            results[position] = Some(Err(WriteFailure::Rejected(error)));
        }
        if refresh {
            // Checks whether Redis could not index some of them.
            self.servers.wake_supervisor.notify_one();
        }
        Ok(results.into_iter().map(|result| result.expect("every write has a result")).collect())
    }

    /// Executes the writes at these positions, whose keys one shard holds.
    async fn write_on(
        &self,
        shard: Arc<Shard>,
        state: &CachedState,
        ops: &[Op],
        positions: Vec<usize>,
        now_ms: u64,
    ) -> WriteResults {
        let mut results: WriteResults = Vec::with_capacity(positions.len());
        let mut ops = positions.into_iter().map(|position| &ops[position]);
        while ops.len() > 0 {
            let batch = self.next_batch(&shard.primary, state, &mut ops, now_ms);
            match self.send_batch(&shard.primary, &batch).await {
                Ok(written) => results.extend(written),
                // Earlier pipelines are already applied, so each write has its own result.
                Err(error) => {
                    let error = shard.with_shard(error);
                    results.extend(batch.writes.iter().map(|_| Err(WriteFailure::Rejected(error.clone()))));
                }
            }
        }
        results
    }

    /// The next batch of writes for one pipeline.
    fn next_batch<'o>(
        &self,
        node: &Node,
        state: &CachedState,
        ops: &mut impl Iterator<Item = &'o Op>,
        now_ms: u64,
    ) -> WritePipeline {
        let count_max = node.batch_size.load(Ordering::Relaxed);
        let commands = Pipeline::with_capacity(count_max);
        let mut batch = WritePipeline { writes: Vec::with_capacity(count_max), commands, bytes: 0 };
        while batch.writes.len() < count_max && batch.bytes < PIPELINE_BYTES_MAX {
            let Some(op) = ops.next() else { break };
            let (write, command) = self.write_command(state, op, now_ms);
            batch.bytes += command.args_iter().map(|argument| argument_bytes(&argument)).sum::<usize>();
            batch.writes.push(write);
            batch.commands.add_command(command);
        }
        batch
    }

    /// Sends one pipeline; an error applies to all its writes.
    async fn send_batch(&self, node: &Arc<Node>, batch: &WritePipeline) -> Result<WriteResults, Error> {
        let _permit = node.write_permits.acquire().await.map_err(|_| Error::closing())?;
        let replicas = self.servers.store().wait_replicas;
        let began = Instant::now();
        let sent = self.servers.send_pipeline(node, &batch.commands, batch.bytes, replicas).await;
        if sent.is_err() {
            // Shrinks the next batches if the server did not finish this one in time.
            node.adapt_batch_size(batch.writes.len(), began.elapsed());
        }
        let mut replies = sent?;
        let is_missing = |reply: &Result<Value, Error>| matches!(reply, Ok(Value::ServerError(reply)) if error::is_script_missing(reply));
        if replies.iter().any(is_missing) {
            // The server was restarted, or its scripts were flushed.
            self.servers.load_script(node).await?;
            let positions: Vec<usize> =
                (0..replies.len()).filter(|position| is_missing(&replies[*position])).collect();
            let mut again = Pipeline::with_capacity(positions.len());
            for (_, command) in
                batch.commands.cmd_iter().enumerate().filter(|(position, _)| positions.contains(position))
            {
                again.add_command(command.clone());
            }
            let repeated = self.servers.send_pipeline(node, &again, batch.bytes, replicas).await?;
            for (position, reply) in positions.into_iter().zip(repeated) {
                replies[position] = reply;
            }
        }
        node.adapt_batch_size(replies.len(), began.elapsed());
        let outcome = |(write, reply): (&SentWrite, Result<Value, Error>)| match reply {
            Ok(reply) => write.outcome(reply),
            Err(error) => Err(WriteFailure::Rejected(error)),
        };
        Ok(batch.writes.iter().zip(replies).map(outcome).collect())
    }

    fn write_command(&self, state: &CachedState, op: &Op, now_ms: u64) -> (SentWrite, Cmd) {
        match op {
            Op::Put { key, fields, expires_at_ms, vectors, expected } => {
                let computed = encode_vectors(state, vectors);
                let expiry = expires_at_ms.or_else(|| state.default_expiry(key, now_ms));
                let all: Vec<(&[u8], &[u8])> =
                    fields.iter().chain(&computed).map(|field| (&*field.name, &*field.value)).collect();
                let seq = content_hash(all.iter().copied(), expiry);
                let command = self.servers.script.put(key, all.into_iter(), expiry, *expected);
                (SentWrite { expected: *expected, seq }, command)
            }
            Op::Delete { key, expected } => {
                (SentWrite { expected: *expected, seq: 0 }, self.servers.script.delete(key, *expected))
            }
            Op::SetVectors { key, expected, vectors } => {
                let expected = Expected::Seq(*expected);
                (
                    SentWrite { expected, seq: 0 },
                    self.servers.script.set(key, &encode_vectors(state, vectors), expected),
                )
            }
        }
    }
}

impl SentWrite {
    fn outcome(&self, reply: Value) -> Result<WriteOutcome, WriteFailure> {
        match parse_reply(reply) {
            Ok(WriteReply::Written { existed }) => Ok(WriteOutcome { seq: self.seq, existed }),
            Ok(WriteReply::Conflict { found }) => {
                Err(WriteError::Conflict { expected: self.expected, found }.into())
            }
            Err(error) => Err(WriteFailure::Rejected(error)),
        }
    }
}

fn key(op: &Op) -> &[u8] {
    match op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::SetVectors { key, .. } => key,
    }
}

/// Computed vectors as hash fields.
fn encode_vectors(state: &CachedState, vectors: &[ComputedVector]) -> Vec<Field> {
    let blob = |vector| {
        // The collection was dropped meanwhile.
        let (name, schema) = state.vector_field(vector)?;
        let value = encode_vector(&vector.values, schema.vector_type).into();
        Some(Field { name: name.as_bytes().into(), value })
    };
    vectors.iter().filter_map(blob).collect()
}

fn argument_bytes(argument: &redis::Arg<&[u8]>) -> usize {
    match argument {
        redis::Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    }
}
