//! Documents read and written.

use std::{collections::HashMap, time::Instant};

use engine::{Expected, encode_vector};
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Pipeline, Value};

use super::{
    ComputedVector, Document, Error, Field, NotWritten, Op, Results, Stood, WriteError, WriteOutcome,
    core::Core,
    document::{self, content},
    error,
    node::{Node, PIPELINE_MAX},
    script::{Ran, ran},
    servers::{Part, Shard},
    state::State,
};
use crate::{
    ErrorKind, Seq,
    sync::{Arc, Ordering},
};

/// Bytes a pipeline.
const PIPELINE_BYTES_MAX: usize = 4 << 20;

/// Writes after which the index is looked at.
const MANY: usize = 256;

/// A write on its way.
struct Way {
    expected: Expected,
    /// The number of the content it leaves.
    seq: Seq,
}

/// Writes that go in one pipeline.
struct Group {
    ways: Vec<Way>,
    commands: Pipeline,
    bytes: usize,
}

impl Core {
    /// The documents under these keys, without the vectors computed from them.
    pub(super) async fn read(&self, keys: Vec<Vec<u8>>) -> Result<Stood, Error> {
        let state = self.state();
        let mut stood = HashMap::with_capacity(keys.len());
        for document in self.raw(&keys).await?.into_iter().flatten() {
            let (document, vectors) = state.split(document);
            stood.insert(document.key.to_vec(), (document, vectors));
        }
        Ok(stood)
    }

    /// The hashes under these keys, each as it is; nothing for what is no hash.
    pub(super) async fn raw(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Document>>, Error> {
        let (parts, unserved) = self.servers.map().divide(keys.iter().map(Vec::as_slice));
        if let Some((_, error)) = unserved.into_iter().next() {
            return Err(error);
        }
        let read = try_join_all(parts.iter().map(|(shard, places)| self.raw_of(shard, keys, places))).await?;
        let mut documents: Vec<Option<Document>> = keys.iter().map(|_| None).collect();
        for ((_, places), read) in parts.iter().zip(read) {
            for (place, document) in places.iter().zip(read) {
                documents[*place] = document;
            }
        }
        Ok(documents)
    }

    /// Those of these keys at `places`, which a shard holds.
    async fn raw_of(
        &self,
        shard: &Shard,
        keys: &[Vec<u8>],
        places: &[usize],
    ) -> Result<Vec<Option<Document>>, Error> {
        let mut documents = Vec::with_capacity(places.len());
        for places in places.chunks(PIPELINE_MAX / 2) {
            let mut pipeline = Pipeline::with_capacity(2 * places.len());
            for place in places {
                pipeline.cmd("HGETALL").arg(&keys[*place]).cmd("PEXPIRETIME").arg(&keys[*place]);
            }
            let asked = self.servers.ask_all(&shard.primary, &pipeline, 0, 0).await;
            let mut replies = asked.map_err(|error| shard.blame(error))?.into_iter();
            for place in places {
                let mut next = || replies.next().expect("as many replies as commands");
                let (hash, end) = (next()?, next()?);
                documents.push(match document::read(&keys[*place], hash, end) {
                    // Something else than a document stands there.
                    Err(error) if error.kind == ErrorKind::Conflict => None,
                    read => read.map_err(|error| shard.blame(error))?,
                });
            }
        }
        Ok(documents)
    }

    /// Makes these writes, on every shard in pipelines one after the other; one result each.
    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<Results, Error> {
        let state = self.state();
        let now_ms = self.clock.now_ms();
        let many = ops.len() >= MANY;
        let (parts, unserved) = self.servers.map().divide(ops.iter().map(key));
        let of_shard =
            |(shard, places): &Part| self.write_on(shard.clone(), &state, &ops, places.clone(), now_ms);
        let written = join_all(parts.iter().map(of_shard)).await;
        let mut results: Vec<Option<Result<WriteOutcome, NotWritten>>> = ops.iter().map(|_| None).collect();
        for ((_, places), written) in parts.iter().zip(written) {
            for (place, result) in places.iter().zip(written) {
                results[*place] = Some(result);
            }
        }
        for (place, error) in unserved {
            results[place] = Some(Err(NotWritten::Refused(error)));
        }
        if many {
            // Whether Redis has left any of them out of its index.
            self.servers.look.notify_one();
        }
        Ok(results.into_iter().map(|result| result.expect("every key has a shard, or none")).collect())
    }

    /// Makes the writes at these places, whose keys a shard holds.
    async fn write_on(
        &self,
        shard: Arc<Shard>,
        state: &State,
        ops: &[Op],
        places: Vec<usize>,
        now_ms: u64,
    ) -> Results {
        let mut results: Results = Vec::with_capacity(places.len());
        let mut ops = places.into_iter().map(|place| &ops[place]);
        while ops.len() > 0 {
            let group = self.next_group(&shard.primary, state, &mut ops, now_ms);
            match self.write_group(&shard.primary, &group).await {
                Ok(written) => results.extend(written),
                // What was written before stands, so each write has its own fate.
                Err(error) => {
                    let error = shard.blame(error);
                    results.extend(group.ways.iter().map(|_| Err(NotWritten::Refused(error.clone()))));
                }
            }
        }
        results
    }

    /// As many writes as go into one pipeline.
    fn next_group<'o>(
        &self,
        node: &Node,
        state: &State,
        ops: &mut impl Iterator<Item = &'o Op>,
        now_ms: u64,
    ) -> Group {
        let most = node.group.load(Ordering::Relaxed);
        let commands = Pipeline::with_capacity(most);
        let mut group = Group { ways: Vec::with_capacity(most), commands, bytes: 0 };
        while group.ways.len() < most && group.bytes < PIPELINE_BYTES_MAX {
            let Some(op) = ops.next() else { break };
            let (way, command) = self.way(state, op, now_ms);
            group.bytes += command.args_iter().map(|argument| length(&argument)).sum::<usize>();
            group.ways.push(way);
            group.commands.add_command(command);
        }
        group
    }

    /// One pipeline; an error is of all its writes.
    async fn write_group(&self, node: &Arc<Node>, group: &Group) -> Result<Results, Error> {
        let _turn = node.writing.acquire().await.map_err(|_| Error::closing())?;
        let replicas = self.servers.store().wait_replicas;
        let began = Instant::now();
        let asked = self.servers.ask_all(node, &group.commands, group.bytes, replicas).await;
        if asked.is_err() {
            // A server that could not work through it in time is not asked for as much again.
            node.note_pace(group.ways.len(), began.elapsed());
        }
        let mut replies = asked?;
        let is_missing = |reply: &Result<Value, Error>| matches!(reply, Ok(Value::ServerError(refused)) if error::is_script_missing(refused));
        if replies.iter().any(is_missing) {
            // A server has been restarted, or its scripts were flushed.
            self.servers.load_script(node).await?;
            let places: Vec<usize> =
                (0..replies.len()).filter(|place| is_missing(&replies[*place])).collect();
            let mut again = Pipeline::with_capacity(places.len());
            for (_, command) in
                group.commands.cmd_iter().enumerate().filter(|(place, _)| places.contains(place))
            {
                again.add_command(command.clone());
            }
            let repeated = self.servers.ask_all(node, &again, group.bytes, replicas).await?;
            for (place, reply) in places.into_iter().zip(repeated) {
                replies[place] = reply;
            }
        }
        node.note_pace(replies.len(), began.elapsed());
        let became = |(way, reply): (&Way, Result<Value, Error>)| match reply {
            Ok(reply) => way.became(reply),
            Err(error) => Err(NotWritten::Refused(error)),
        };
        Ok(group.ways.iter().zip(replies).map(became).collect())
    }

    fn way(&self, state: &State, op: &Op, now_ms: u64) -> (Way, Cmd) {
        match op {
            Op::Put { key, fields, expires_at_ms, vectors, expected } => {
                let computed = blobs(state, vectors);
                let end = expires_at_ms.or_else(|| state.default_end(key, now_ms));
                let all: Vec<(&[u8], &[u8])> =
                    fields.iter().chain(&computed).map(|field| (&*field.name, &*field.value)).collect();
                let seq = content(all.iter().copied(), end);
                let command = self.servers.script.put(key, all.into_iter(), end, *expected);
                (Way { expected: *expected, seq }, command)
            }
            Op::Delete { key, expected } => {
                (Way { expected: *expected, seq: 0 }, self.servers.script.delete(key, *expected))
            }
            Op::SetVectors { key, expected, vectors } => {
                let expected = Expected::Seq(*expected);
                (Way { expected, seq: 0 }, self.servers.script.set(key, &blobs(state, vectors), expected))
            }
        }
    }
}

impl Way {
    fn became(&self, reply: Value) -> Result<WriteOutcome, NotWritten> {
        match ran(reply) {
            Ok(Ran::Written { existed }) => Ok(WriteOutcome { seq: self.seq, existed }),
            Ok(Ran::Conflict { found }) => {
                Err(WriteError::Conflict { expected: self.expected, found }.into())
            }
            Err(error) => Err(NotWritten::Refused(error)),
        }
    }
}

fn key(op: &Op) -> &[u8] {
    match op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::SetVectors { key, .. } => key,
    }
}

/// Computed vectors as fields of a hash.
fn blobs(state: &State, vectors: &[ComputedVector]) -> Vec<Field> {
    let blob = |vector| {
        // Of a collection that was dropped meanwhile nothing is left to write.
        let (name, schema) = state.field_of(vector)?;
        let value = encode_vector(&vector.values, schema.vector_type).into();
        Some(Field { name: name.as_bytes().into(), value })
    };
    vectors.iter().filter_map(blob).collect()
}

fn length(argument: &redis::Arg<&[u8]>) -> usize {
    match argument {
        redis::Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    }
}
