//! Documents gone through one after the other, by walking the keys.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use redis::{Cmd, Pipeline, Value};

use super::{
    Cursor, Document, Error, Filter, Lacking, Redis, Scrolled, error, no_cursor, reply,
    servers::{Shard, into_result},
    state::{Collection, computed_fields},
};
use crate::{ErrorKind, Schema};

/// Keys looked at in one step.
const SCAN_COUNT: usize = 1000;

/// Bytes of keys left over: they have to fit into an address, in base64, escaped.
const REMAINING_BYTES_MAX: usize = 2048;

/// How long a page may be looked for before it is given as it is, even if it is empty.
const PAGE_TIME: Duration = Duration::from_millis(1000);

/// Keys taken away at once.
const UNLINK_BATCH_MAX: usize = 512;

/// Longest cursor that is read.
const CURSOR_BYTES_MAX: usize = 1 << 20;

/// Where a walk over all keys stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ScrollCursor {
    /// What the servers and their slots were when it began: a place in one server's keys is none in
    /// another's.
    map: u64,
    /// Which of the shards; their number at the end.
    shard: usize,
    /// Which of the prefixes.
    prefix: usize,
    /// Redis's own cursor.
    scan: u64,
    /// Keys that came but were not given yet: Redis gives a few more than it is asked for.
    remaining: Vec<Vec<u8>>,
}

impl ScrollCursor {
    pub(super) fn encode(&self) -> Cursor {
        let mut text = format!("{:x}.{}.{}.{}", self.map, self.shard, self.prefix, self.scan);
        for key in &self.remaining {
            text.push('.');
            BASE64_URL_SAFE_NO_PAD.encode_string(key, &mut text);
        }
        text
    }

    pub(super) fn decode(text: &str) -> Result<ScrollCursor, Error> {
        let parse = || {
            let mut parts = text.split('.');
            let map = u64::from_str_radix(parts.next()?, 16).ok()?;
            let shard = parts.next()?.parse().ok()?;
            let prefix = parts.next()?.parse().ok()?;
            let scan = parts.next()?.parse().ok()?;
            let remaining =
                parts.map(|key| BASE64_URL_SAFE_NO_PAD.decode(key).ok()).collect::<Option<_>>()?;
            Some(ScrollCursor { map, shard, prefix, scan, remaining })
        };
        let cursor = (text.len() <= CURSOR_BYTES_MAX).then(parse).flatten();
        cursor.ok_or_else(|| no_cursor(text))
    }
}

impl Redis {
    /// A page of the documents a filter lets through, at most `limit`; empty pages come before
    /// the end where there is little to find.
    pub(in crate::backend) async fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        let state = self.state();
        let collection = state.get(collection)?;
        let passes = |document: &Document| {
            filter.is_none_or(|filter| collection.checker.matches(filter, &document.fields))
        };
        let (documents, next) = self.scan_documents(collection, after, limit, &[], passes).await?;
        let documents = documents.into_iter().map(|document| state.split_vectors(document).0).collect();
        Ok(Scrolled { documents, next })
    }

    /// Documents that have text but not its vector.
    pub(in crate::backend) async fn unembedded(
        &self,
        collection: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Lacking, Error> {
        let state = self.state();
        let collection = state.get(collection)?;
        let version = collection.checker.version();
        let fields: Vec<&str> = computed_fields(collection.schema()).map(|(_, name, _)| name).collect();
        if fields.is_empty() || self.fully_embedded.lock().contains(&version) {
            return Ok(Lacking { documents: Vec::new(), next: None });
        }
        let texts = |document: &Document| collection.checker.texts_to_embed(&document.fields);
        let (documents, next) = self
            .scan_documents(collection, after, limit, &fields, |document| !texts(document).is_empty())
            .await?;
        if next.is_none() {
            // From here on whoever writes through Nearfield brings the vectors.
            self.fully_embedded.lock().insert(version);
        }
        let documents = documents.into_iter().map(|document| {
            let texts = texts(&document);
            (document, texts)
        });
        Ok(Lacking { documents: documents.collect(), next })
    }

    /// Those of these keys whose hashes lack one of these fields.
    async fn keys_lacking(&self, keys: Vec<Vec<u8>>, fields: &[&str]) -> Result<Vec<Vec<u8>>, Error> {
        let (groups, unserved) = self.servers.map().group_by_shard(keys.iter().map(Vec::as_slice));
        if let Some((_, error)) = unserved.into_iter().next() {
            return Err(error);
        }
        let mut lacks = vec![false; keys.len()];
        for (shard, positions) in groups {
            let mut pipeline = Pipeline::with_capacity(positions.len() * fields.len());
            for position in &positions {
                for field in fields {
                    pipeline.cmd("HEXISTS").arg(&keys[*position]).arg(field);
                }
            }
            let replies = self.servers.send_pipeline(&shard.primary, &pipeline, 0, 0).await;
            let mut replies = replies.map_err(|error| shard.with_shard(error))?.into_iter();
            for position in positions {
                let of_key = replies.by_ref().take(fields.len());
                // What is no hash is told by whoever reads it.
                lacks[position] =
                    of_key.fold(false, |lacks, reply| lacks | matches!(reply, Ok(Value::Int(0))));
            }
        }
        Ok(keys.into_iter().zip(lacks).filter(|(_, lacks)| *lacks).map(|(key, _)| key).collect())
    }

    /// Documents that are `wanted`, and, if fields are named, that lack one of them.
    async fn scan_documents(
        &self,
        collection: &Collection,
        after: Option<&Cursor>,
        limit: usize,
        lacking: &[&str],
        wanted: impl Fn(&Document) -> bool,
    ) -> Result<(Vec<Document>, Option<Cursor>), Error> {
        let schema = collection.schema();
        let map = self.servers.map();
        let start = || Ok(ScrollCursor { map: map.fingerprint(), ..ScrollCursor::default() });
        let mut cursor = after.map_or_else(start, |text| ScrollCursor::decode(text))?;
        let shards = map.shards();
        if shards.is_empty() {
            return Err(self.servers.unavailable_reason().unwrap_or_else(error::moving));
        }
        if cursor.shard > shards.len()
            || cursor.prefix >= schema.prefixes.len()
            || !cursor.remaining.iter().all(|key| schema.matches_key(key))
        {
            return Err(no_cursor(after.map_or("", |text| text)));
        }
        let began = Instant::now();
        let mut found: Vec<Document> = Vec::new();
        loop {
            if cursor.map != self.servers.map().fingerprint() {
                return Err(slots_moved());
            }
            while !cursor.remaining.is_empty() && found.len() < limit {
                let count = cursor.remaining.len().min(limit - found.len());
                let mut keys: Vec<Vec<u8>> = cursor.remaining.drain(..count).collect();
                if !lacking.is_empty() {
                    keys = self.keys_lacking(keys, lacking).await?;
                }
                found.extend(self.get_hashes(&keys).await?.into_iter().flatten().filter(&wanted));
            }
            if cursor.shard == shards.len() && cursor.remaining.is_empty() {
                return Ok((found, None));
            }
            if found.len() >= limit || (began.elapsed() > PAGE_TIME && cursor.remaining.is_empty()) {
                return Ok((found, Some(cursor.encode())));
            }
            self.scan_step(&shards[cursor.shard], schema, &mut cursor, limit - found.len()).await?;
        }
    }

    /// Looks at some more keys, at hardly more than `room`.
    async fn scan_step(
        &self,
        shard: &Shard,
        schema: &Schema,
        cursor: &mut ScrollCursor,
        room: usize,
    ) -> Result<(), Error> {
        let prefix = &schema.prefixes[cursor.prefix];
        let mut count = SCAN_COUNT;
        let (next, mut keys) = loop {
            let (next, keys) = self.scan(shard, prefix, cursor.scan, count).await?;
            // What is left over travels with the cursor.
            let remaining_bytes: usize = keys.iter().skip(room).map(Vec::len).sum();
            if remaining_bytes <= REMAINING_BYTES_MAX || count == 1 {
                break (next, keys);
            }
            count = (count * room / keys.len()).clamp(1, count - 1);
        };
        // A key under two prefixes is gone through under the first of them.
        let earlier = &schema.prefixes[..cursor.prefix];
        keys.retain(|key| !earlier.iter().any(|prefix| key.starts_with(prefix)));
        cursor.remaining.extend(keys);
        cursor.scan = next;
        cursor.prefix += usize::from(next == 0);
        if cursor.prefix == schema.prefixes.len() {
            cursor.prefix = 0;
            cursor.shard += 1;
        }
        Ok(())
    }

    /// Takes away every key under these prefixes.
    pub(super) async fn unlink_prefixes(&self, prefixes: &[Vec<u8>]) -> Result<(), Error> {
        for shard in self.servers.map().shards() {
            for prefix in prefixes {
                let mut scan = 0;
                loop {
                    let (next, keys) = self.scan(shard, prefix, scan, SCAN_COUNT).await?;
                    for keys in keys.chunks(UNLINK_BATCH_MAX) {
                        let mut unlink = Pipeline::with_capacity(keys.len());
                        for key in keys {
                            unlink.cmd("UNLINK").arg(key);
                        }
                        for reply in self.servers.send_pipeline(&shard.primary, &unlink, 0, 0).await? {
                            into_result(reply?)?;
                        }
                    }
                    scan = next;
                    if scan == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Hashes of a shard under a prefix, from a cursor on, and the next cursor: 0 at the end.
    async fn scan(
        &self,
        shard: &Shard,
        prefix: &[u8],
        cursor: u64,
        count: usize,
    ) -> Result<(u64, Vec<Vec<u8>>), Error> {
        let asked = shard.primary.connections.send(&scan_command(prefix, cursor, count)).await;
        let reply = asked.and_then(into_result).map_err(|error| shard.with_shard(error))?;
        parse_scan(reply)
    }
}

/// Reads the reply to SCAN.
pub(super) fn parse_scan(reply: Value) -> Result<(u64, Vec<Vec<u8>>), Error> {
    const WHAT: &str = "SCAN";
    let Ok([next, keys]) = <[_; 2]>::try_from(reply::items(reply, WHAT)?) else {
        return Err(error::reply(WHAT));
    };
    let next = reply::text(next, WHAT)?.parse().map_err(|_| error::reply(WHAT))?;
    let keys = reply::items(keys, WHAT)?;
    let mut keys = keys.into_iter().map(|key| reply::bytes(key, WHAT)).collect::<Result<Vec<_>, _>>()?;
    // Redis may give a key twice in one step.
    keys.sort_unstable();
    keys.dedup();
    Ok((next, keys))
}

fn scan_command(prefix: &[u8], cursor: u64, count: usize) -> Cmd {
    let mut command = redis::cmd("SCAN");
    command
        .arg(cursor)
        .arg("MATCH")
        .arg(glob_pattern(prefix))
        .arg("COUNT")
        .arg(count)
        .arg("TYPE")
        .arg("hash");
    command
}

/// The refusal of a cursor in keys that have gone to other servers.
fn slots_moved() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "scroll-interrupted",
        "the Redis Cluster has moved slots, or a primary was replaced, since this scroll began: begin it again",
    )
    .at("after")
}

/// The glob pattern of all keys under a prefix.
fn glob_pattern(prefix: &[u8]) -> Vec<u8> {
    let mut glob_pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\^-".contains(byte) {
            glob_pattern.push(b'\\');
        }
        glob_pattern.push(*byte);
    }
    glob_pattern.push(b'*');
    glob_pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_as_it_was_written() {
        for remaining in [vec![], vec![b"a:1".to_vec(), b"\xff.\x00".to_vec()]] {
            let cursor = ScrollCursor { map: u64::MAX, shard: 2, prefix: 3, scan: u64::MAX, remaining };
            assert_eq!(ScrollCursor::decode(&cursor.encode()).unwrap(), cursor);
        }
        for wrong in ["", "x", "1", "1.", "1.2", "1.2.3", "1.2.3.4.!", "1.2.-3.4", "x.2.3.4"] {
            assert_eq!(ScrollCursor::decode(wrong).unwrap_err().code, "cursor", "{wrong:?}");
        }
    }

    #[test]
    fn a_prefix_is_matched_as_it_is() {
        assert_eq!(glob_pattern(b"article:"), b"article:*");
        assert_eq!(glob_pattern(b"a*[b]?\\"), b"a\\*\\[b\\]\\?\\\\*");
    }
}
