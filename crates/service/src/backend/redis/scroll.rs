//! Listing documents with SCAN.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use redis::{Cmd, Pipeline, Value};

use super::{
    Cursor, Document, Error, Filter, PendingEmbeddings, Redis, Scrolled, error, invalid_cursor, metadata,
    reply,
    servers::{Shard, into_result},
    state::{Collection, computed_fields},
};
use crate::{ErrorKind, KeyPage};

/// `COUNT` of one SCAN.
const SCAN_COUNT: usize = 1000;

/// Bytes of remaining keys in a cursor, which has to fit into a URL in base64.
const REMAINING_BYTES_MAX: usize = 2048;

/// Time after which a page is returned as it is, even if it is empty.
const PAGE_TIME: Duration = Duration::from_millis(1000);

/// Keys per UNLINK pipeline.
const UNLINK_BATCH_MAX: usize = 512;

/// Maximum length of an accepted cursor.
const CURSOR_BYTES_MAX: usize = 1 << 20;

/// A position in the scan over all keys of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ScrollCursor {
    /// Fingerprint of the slot map when the scroll began: a SCAN cursor is valid on one server only.
    map: u64,
    /// Index of the shard; the number of shards at the end.
    shard: usize,
    /// Index of the prefix.
    prefix: usize,
    /// The SCAN cursor.
    scan: u64,
    /// Keys that SCAN returned in excess of the page.
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
        cursor.ok_or_else(|| invalid_cursor(text))
    }
}

impl Redis {
    /// A page of at most `limit` documents that match a filter. A page may be empty before the end if
    /// there are few matches.
    pub(in crate::backend) async fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        let state = self.state();
        let collection = state.get(collection)?;
        let matches = |document: &Document| {
            filter.is_none_or(|filter| collection.validator.matches(filter, &document.fields))
        };
        let (documents, next) = self.scan_documents(collection, after, limit, &[], matches).await?;
        let documents = documents.into_iter().map(|document| state.split_vectors(document).0).collect();
        Ok(Scrolled { documents, next })
    }

    /// Documents with text whose vectors are missing.
    pub(in crate::backend) async fn unembedded(
        &self,
        collection: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<PendingEmbeddings, Error> {
        let state = self.state();
        let collection = state.get(collection)?;
        let version = collection.validator.version();
        let fields: Vec<&str> = computed_fields(collection.schema()).map(|(_, name, _)| name).collect();
        if fields.is_empty() || self.fully_embedded.lock().contains(&version) {
            return Ok(PendingEmbeddings { documents: Vec::new(), next: None });
        }
        let texts = |document: &Document| collection.validator.texts_to_embed(&document.fields);
        let (documents, next) = self
            .scan_documents(collection, after, limit, &fields, |document| !texts(document).is_empty())
            .await?;
        if next.is_none() {
            // From here on every write through Nearfield includes the vectors.
            self.fully_embedded.lock().insert(version);
        }
        let documents = documents.into_iter().map(|document| {
            let texts = texts(&document);
            (document, texts)
        });
        Ok(PendingEmbeddings { documents: documents.collect(), next })
    }

    /// A page of at most `limit` keys of hashes under a prefix, in no order; Nearfield's own keys are left out. A page
    /// may be empty before the end.
    pub(in crate::backend) async fn keys(
        &self,
        prefix: &[u8],
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<KeyPage, Error> {
        let map = self.servers.map();
        let start = || Ok(ScrollCursor { map: map.fingerprint(), ..ScrollCursor::default() });
        let mut cursor = after.map_or_else(start, |text| ScrollCursor::decode(text))?;
        let (shards, prefixes) = (map.shards(), [prefix.to_vec()]);
        if shards.is_empty() {
            return Err(self.servers.unavailable_reason().unwrap_or_else(error::too_many_redirections));
        }
        if cursor.shard > shards.len()
            || cursor.prefix > 0
            || !cursor.remaining.iter().all(|key| key.starts_with(prefix))
        {
            return Err(invalid_cursor(after.map_or("", |text| text)));
        }
        if cursor.map != map.fingerprint() {
            return Err(slots_moved());
        }
        if cursor.remaining.is_empty() && cursor.shard < shards.len() {
            self.scan_step(&shards[cursor.shard], &prefixes, &mut cursor, limit).await?;
        }
        let count = cursor.remaining.len().min(limit);
        let mut keys: Vec<Vec<u8>> = cursor.remaining.drain(..count).collect();
        keys.retain(|key| !key.starts_with(metadata::KEY_PREFIX.as_bytes()));
        let is_end = cursor.shard == shards.len() && cursor.remaining.is_empty();
        Ok(KeyPage { keys, next: (!is_end).then(|| cursor.encode()) })
    }

    /// The keys whose hashes lack one of these fields.
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
                let key_replies = replies.by_ref().take(fields.len());
                // An error reply is ignored: reading the key reports it.
                lacks[position] =
                    key_replies.fold(false, |lacks, reply| lacks | matches!(reply, Ok(Value::Int(0))));
            }
        }
        Ok(keys.into_iter().zip(lacks).filter(|(_, lacks)| *lacks).map(|(key, _)| key).collect())
    }

    /// Documents that `matches` accepts and that lack one of the fields `lacking`, if any are named.
    async fn scan_documents(
        &self,
        collection: &Collection,
        after: Option<&Cursor>,
        limit: usize,
        lacking: &[&str],
        matches: impl Fn(&Document) -> bool,
    ) -> Result<(Vec<Document>, Option<Cursor>), Error> {
        let schema = collection.schema();
        let map = self.servers.map();
        let start = || Ok(ScrollCursor { map: map.fingerprint(), ..ScrollCursor::default() });
        let mut cursor = after.map_or_else(start, |text| ScrollCursor::decode(text))?;
        let shards = map.shards();
        if shards.is_empty() {
            return Err(self.servers.unavailable_reason().unwrap_or_else(error::too_many_redirections));
        }
        if cursor.shard > shards.len()
            || cursor.prefix >= schema.prefixes.len()
            || !cursor.remaining.iter().all(|key| schema.matches_key(key))
        {
            return Err(invalid_cursor(after.map_or("", |text| text)));
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
                found.extend(self.get_hashes(&keys).await?.into_iter().flatten().filter(&matches));
            }
            if cursor.shard == shards.len() && cursor.remaining.is_empty() {
                return Ok((found, None));
            }
            if found.len() >= limit || (began.elapsed() > PAGE_TIME && cursor.remaining.is_empty()) {
                return Ok((found, Some(cursor.encode())));
            }
            let missing = limit - found.len();
            self.scan_step(&shards[cursor.shard], &schema.prefixes, &mut cursor, missing).await?;
        }
    }

    /// Scans some more keys, not many more than `limit`.
    async fn scan_step(
        &self,
        shard: &Shard,
        prefixes: &[Vec<u8>],
        cursor: &mut ScrollCursor,
        limit: usize,
    ) -> Result<(), Error> {
        let prefix = &prefixes[cursor.prefix];
        let mut count = SCAN_COUNT;
        let (next, mut keys) = loop {
            let (next, keys) = self.scan(shard, prefix, cursor.scan, count).await?;
            // The remaining keys become part of the cursor.
            let remaining_bytes: usize = keys.iter().skip(limit).map(Vec::len).sum();
            if remaining_bytes <= REMAINING_BYTES_MAX || count == 1 {
                break (next, keys);
            }
            count = (count * limit / keys.len()).clamp(1, count - 1);
        };
        // A key under several prefixes is visited under the first of them.
        let earlier = &prefixes[..cursor.prefix];
        keys.retain(|key| !earlier.iter().any(|prefix| key.starts_with(prefix)));
        cursor.remaining.extend(keys);
        cursor.scan = next;
        cursor.prefix += usize::from(next == 0);
        if cursor.prefix == prefixes.len() {
            cursor.prefix = 0;
            cursor.shard += 1;
        }
        Ok(())
    }

    /// Deletes all hashes under these prefixes.
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

    /// The keys of a shard's hashes under a prefix from a SCAN cursor on, and the next cursor: 0 at the end.
    async fn scan(
        &self,
        shard: &Shard,
        prefix: &[u8],
        cursor: u64,
        count: usize,
    ) -> Result<(u64, Vec<Vec<u8>>), Error> {
        let sent = shard.primary.connections.send(&scan_command(prefix, cursor, count)).await;
        let reply = sent.and_then(into_result).map_err(|error| shard.with_shard(error))?;
        parse_scan(reply)
    }
}

/// Parses the reply to SCAN.
pub(super) fn parse_scan(reply: Value) -> Result<(u64, Vec<Vec<u8>>), Error> {
    const WHAT: &str = "SCAN";
    let Ok([next, keys]) = <[_; 2]>::try_from(reply::items(reply, WHAT)?) else {
        return Err(error::reply(WHAT));
    };
    let next = reply::text(next, WHAT)?.parse().map_err(|_| error::reply(WHAT))?;
    let keys = reply::items(keys, WHAT)?;
    let mut keys = keys.into_iter().map(|key| reply::bytes(key, WHAT)).collect::<Result<Vec<_>, _>>()?;
    // SCAN may return a key twice.
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

/// The error for a cursor from before slots moved.
fn slots_moved() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "scroll-interrupted",
        "the Redis Cluster moved slots or replaced a primary since this scroll began: start the scroll again",
    )
    .at("after")
}

/// The glob pattern that matches all keys under a prefix.
fn glob_pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\^-".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_invalid_cursors_are_rejected() {
        for remaining in [vec![], vec![b"a:1".to_vec(), b"\xff.\x00".to_vec()]] {
            let cursor = ScrollCursor { map: u64::MAX, shard: 2, prefix: 3, scan: u64::MAX, remaining };
            assert_eq!(ScrollCursor::decode(&cursor.encode()).unwrap(), cursor);
        }
        for wrong in ["", "x", "1", "1.", "1.2", "1.2.3", "1.2.3.4.!", "1.2.-3.4", "x.2.3.4"] {
            assert_eq!(ScrollCursor::decode(wrong).unwrap_err().code, "cursor", "{wrong:?}");
        }
    }

    #[test]
    fn escapes_glob_characters_in_a_prefix() {
        assert_eq!(glob_pattern(b"article:"), b"article:*");
        assert_eq!(glob_pattern(b"a*[b]?\\"), b"a\\*\\[b\\]\\?\\\\*");
    }
}
