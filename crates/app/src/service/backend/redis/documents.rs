//! Documents read and written.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use engine::{Expected, encode_vector};
use redis::{Cmd, Pipeline, Value};

use super::{
    ComputedVector, Document, Error, Field, NotWritten, Op, Results, Stood, WriteError, Written,
    core::Core,
    document::{self, content},
    error,
    script::{Ran, ran},
    state::State,
};
use crate::service::{ErrorKind, Seq, sync::Ordering};

/// Commands a pipeline.
const PIPELINE_MAX: usize = 512;

/// Bytes a pipeline.
const PIPELINE_BYTES_MAX: usize = 4 << 20;

/// Fewest documents a pipeline of writes is cut down to.
const GROUP_MIN: usize = 8;

/// Writes after which the index is looked at.
const MANY: usize = 256;

/// How long a pipeline of writes should take: long enough to be worth its round trip, and far
/// from the command timeout however slow the index is.
const GROUP_TIME: Duration = Duration::from_millis(200);

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
        let mut documents = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PIPELINE_MAX / 2) {
            let mut pipeline = Pipeline::with_capacity(2 * keys.len());
            for key in keys {
                pipeline.cmd("HGETALL").arg(key).cmd("PEXPIRETIME").arg(key);
            }
            let mut replies = self.connections.ask_all(&pipeline, 0).await?.into_iter();
            for key in keys {
                let mut next = || replies.next().expect("as many replies as commands");
                let (hash, end) = (next(), next());
                documents.push(match document::read(key, hash, end) {
                    // Something else than a document stands there.
                    Err(error) if error.kind == ErrorKind::Conflict => None,
                    read => read?,
                });
            }
        }
        Ok(documents)
    }

    /// Makes these writes, in pipelines one after the other; one result each.
    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<Results, Error> {
        let state = self.state();
        let now_ms = self.clock.now_ms();
        let mut results: Results = Vec::with_capacity(ops.len());
        let many = ops.len() >= MANY;
        let mut ops = ops.into_iter();
        while ops.len() > 0 {
            let group = self.next_group(&state, &mut ops, now_ms);
            match self.write_group(&group).await {
                Ok(written) => results.extend(written),
                // What was written before stands, so each write has its own fate.
                Err(error) => {
                    results.extend(group.ways.iter().map(|_| Err(NotWritten::Refused(error.clone()))));
                }
            }
        }
        if many {
            // Whether Redis has left any of them out of its index.
            self.connections.look.notify_one();
        }
        Ok(results)
    }

    /// As many writes as go into one pipeline.
    fn next_group(&self, state: &State, ops: &mut std::vec::IntoIter<Op>, now_ms: u64) -> Group {
        let most = self.group.load(Ordering::Relaxed);
        let commands = Pipeline::with_capacity(most);
        let mut group = Group { ways: Vec::with_capacity(most), commands, bytes: 0 };
        while group.ways.len() < most && group.bytes < PIPELINE_BYTES_MAX {
            let Some(op) = ops.next() else { break };
            let (way, command) = self.way(state, &op, now_ms);
            group.bytes += command.args_iter().map(|argument| length(&argument)).sum::<usize>();
            group.ways.push(way);
            group.commands.add_command(command);
        }
        group
    }

    /// One pipeline; an error is of all its writes.
    async fn write_group(&self, group: &Group) -> Result<Results, Error> {
        let _turn = self.writing.acquire().await.map_err(|_| Error::closing())?;
        let began = Instant::now();
        let asked = self.connections.ask_all(&group.commands, group.bytes).await;
        if asked.is_err() {
            // A server that could not work through it in time is not asked for as much again.
            self.note_pace(group.ways.len(), began.elapsed());
        }
        let mut replies = asked?;
        let is_missing =
            |reply: &Value| matches!(reply, Value::ServerError(refused) if error::is_script_missing(refused));
        if replies.iter().any(is_missing) {
            // The server has been restarted, or its scripts were flushed.
            self.connections.ask(&self.script.load()).await?;
            let places: Vec<usize> =
                (0..replies.len()).filter(|place| is_missing(&replies[*place])).collect();
            let mut again = Pipeline::with_capacity(places.len());
            for (_, command) in
                group.commands.cmd_iter().enumerate().filter(|(place, _)| places.contains(place))
            {
                again.add_command(command.clone());
            }
            let repeated = self.connections.ask_all(&again, group.bytes).await?;
            for (place, reply) in places.into_iter().zip(repeated) {
                replies[place] = reply;
            }
        }
        self.note_pace(replies.len(), began.elapsed());
        Ok(group.ways.iter().zip(replies).map(|(way, reply)| way.became(reply)).collect())
    }

    /// Makes the next pipelines as long as they may be for their time.
    fn note_pace(&self, count: usize, took: Duration) {
        let group = self.group.load(Ordering::Relaxed);
        self.group.store(next_group(group, count, took), Ordering::Relaxed);
    }

    fn way(&self, state: &State, op: &Op, now_ms: u64) -> (Way, Cmd) {
        match op {
            Op::Put { key, fields, expires_at_ms, vectors, expected } => {
                let computed = blobs(state, vectors);
                let end = expires_at_ms.or_else(|| state.default_end(key, now_ms));
                let all: Vec<(&[u8], &[u8])> =
                    fields.iter().chain(&computed).map(|field| (&*field.name, &*field.value)).collect();
                let seq = content(all.iter().copied(), end);
                let command = self.script.put(key, all.into_iter(), end, *expected);
                (Way { expected: *expected, seq }, command)
            }
            Op::Delete { key, expected } => {
                (Way { expected: *expected, seq: 0 }, self.script.delete(key, *expected))
            }
            Op::SetVectors { key, expected, vectors } => {
                let expected = Expected::Seq(*expected);
                (Way { expected, seq: 0 }, self.script.set(key, &blobs(state, vectors), expected))
            }
        }
    }
}

/// How many documents go into a pipeline after one of `count` `took` so long, where `group` went so
/// far: at most twice as many, and fewer at once.
fn next_group(group: usize, count: usize, took: Duration) -> usize {
    let ideal = count as f64 * GROUP_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let ideal = (ideal as usize).clamp(GROUP_MIN, PIPELINE_MAX);
    if ideal < group {
        // A short one tells little of how long a full one would take.
        if took > GROUP_TIME { ideal } else { group }
    } else if count >= group {
        ideal.min(2 * group)
    } else {
        group
    }
}

impl Way {
    fn became(&self, reply: Value) -> Result<Written, NotWritten> {
        match ran(reply) {
            Ok(Ran::Written { existed }) => Ok(Written { seq: self.seq, existed }),
            Ok(Ran::Conflict { found }) => {
                Err(WriteError::Conflict { expected: self.expected, found }.into())
            }
            Err(error) => Err(NotWritten::Refused(error)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_grow_step_by_step_and_shrink_at_once() {
        let ms = Duration::from_millis;
        let cases = [
            ((16, 16, ms(1)), 32),
            ((16, 16, ms(150)), 21),
            ((400, 400, ms(1)), PIPELINE_MAX),
            ((512, 512, ms(2000)), 51),
            ((64, 64, ms(2000)), GROUP_MIN),
            ((64, 3, ms(1)), 64),
            ((64, 3, ms(300)), GROUP_MIN),
            ((64, 64, ms(200)), 64),
            ((64, 64, Duration::ZERO), 128),
        ];
        for ((group, count, took), expected) in cases {
            assert_eq!(next_group(group, count, took), expected, "{group} {count} {took:?}");
        }
    }
}
