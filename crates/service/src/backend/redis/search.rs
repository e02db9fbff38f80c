//! Vector search with RediSearch: building the `FT.SEARCH` command and parsing its reply.

use std::time::Duration;

use engine::{Hit, Page, VectorLeg, encode_vector, score};
use redis::{Cmd, Pipeline, Value};

use super::{
    Document, Error, Field, Filter, Query, Schema, error,
    filter::{MATCH_NONE, SimplifiedFilter, simplify},
    reply,
};
use crate::{Algorithm, ErrorKind, FieldKind, Metric, VectorSchema, error_mapping};

/// The name of the distance in a reply, which no field of the schema has.
fn score_name(schema: &Schema) -> String {
    let mut name = "__score".to_owned();
    while schema.field(&name).is_some() {
        name.push('_');
    }
    name
}

/// An `FT.SEARCH` command, and what is needed to parse its reply.
pub(super) struct SearchCommand {
    pub(super) command: Cmd,
    score_name: String,
    metric: Metric,
    min_score: Option<f32>,
}

/// The hits of one shard.
#[derive(Default)]
pub(super) struct ShardHits {
    /// Nearest first.
    pub(super) hits: Vec<Hit>,
    /// Documents that were found but were gone when their fields were read.
    pub(super) vanished: usize,
}

/// Builds the `FT.SEARCH` command for a query; `None` if its filter matches nothing. The caller has
/// checked `ef_search`, `k` and the vector.
///
/// The index of one shard of several (`is_part`) is also searched for the hits that precede the page,
/// and without fields: only the nearest hits of all shards are read, separately. (The index could not
/// return fields: within a search Redis 7.4 looks up documents in the slot of the index's name and
/// finds none.)
pub(super) fn build_search(
    query: &Query<'_>,
    index: &str,
    schema: &Schema,
    time: Duration,
    is_part: bool,
) -> Result<Option<SearchCommand>, Error> {
    let leg = query.vector_leg().map_err(error_mapping::query)?;
    let name = leg.field.expect("the caller names the field to search");
    let Some(FieldKind::Vector(vector)) = schema.field(name) else {
        return Err(field_not_found(query.collection, name, schema));
    };
    let filter = match query.filter.map_or(SimplifiedFilter::MatchAll, simplify) {
        SimplifiedFilter::MatchNone => return Ok(None),
        SimplifiedFilter::MatchAll => None,
        SimplifiedFilter::Filter(filter) => Some(filter),
    };
    let Page { offset, k } = query.page;
    let window = offset + k;
    let score_name = score_name(schema);
    let mut command = redis::cmd("FT.SEARCH");
    command.arg(index).arg(query_text(leg, vector, name, filter.as_ref(), window, &score_name));
    command.arg("PARAMS").arg(2).arg("v").arg(encode_vector(leg.vector, vector.vector_type));
    command.arg("SORTBY").arg(&score_name).arg("ASC");
    let mut fields = returned_fields(query, schema)?;
    if is_part {
        command.arg("LIMIT").arg(0).arg(window);
        fields.clear();
    } else {
        command.arg("LIMIT").arg(offset).arg(k);
    }
    command.arg("RETURN").arg(fields.len() + 1).arg(&score_name).arg(fields);
    command.arg("TIMEOUT").arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    command.arg("DIALECT").arg(2);
    Ok(Some(SearchCommand { command, score_name, metric: vector.metric, min_score: query.min_score }))
}

/// The query in RediSearch's query language.
fn query_text(
    leg: &VectorLeg<'_>,
    vector: &VectorSchema,
    name: &str,
    filter: Option<&Filter>,
    window: usize,
    score_name: &str,
) -> String {
    let mut options = String::new();
    let mut filter = filter.map(Filter::to_string);
    if let Algorithm::Hnsw { ef_search, .. } = vector.algorithm {
        if leg.exact {
            // A brute-force comparison is a way to evaluate a filter, so it needs one; this filter
            // matches every document.
            filter = filter.or_else(|| Some(format!("-{MATCH_NONE}")));
            options.push_str(" HYBRID_POLICY ADHOC_BF");
        } else {
            let ef = leg.ef_search.unwrap_or(ef_search).max(window);
            options = format!(" EF_RUNTIME {ef}");
        }
    }
    let filter = filter.map_or_else(|| "*".to_owned(), |filter| format!("({filter})"));
    format!("{filter}=>[KNN {window} @{} $v{options} AS {score_name}]", escape(name))
}

/// A field name, escaped for the query language.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_whitespace() || (c.is_ascii_punctuation() && c != '_') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Adds two commands that read the fields of a hit and whether the document still exists.
pub(super) fn add_fetch(pipeline: &mut Pipeline, key: &[u8], names: &[&str]) {
    pipeline.cmd("EXISTS").arg(key);
    if names.is_empty() {
        pipeline.cmd("PING");
    } else {
        pipeline.cmd("HMGET").arg(key).arg(names);
    }
}

/// Parses the replies to these commands; `None` if the document no longer exists.
pub(super) fn parse_fields(
    exists: Value,
    values: Value,
    names: &[&str],
) -> Result<Option<Vec<Field>>, Error> {
    const WHAT: &str = "fields of a hit";
    if reply::integer(exists, WHAT)? == 0 {
        return Ok(None);
    }
    if names.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let values = match reply::items(values, WHAT) {
        // Another client replaced the document by a key of another type.
        Err(error) if error.kind == ErrorKind::Conflict => return Ok(None),
        values => values?,
    };
    if values.len() != names.len() {
        return Err(error::reply(WHAT));
    }
    let mut fields = Vec::with_capacity(names.len());
    for (name, value) in names.iter().zip(values) {
        if value != Value::Nil {
            fields.push(Field { name: name.as_bytes().into(), value: reply::bytes(value, WHAT)?.into() });
        }
    }
    Ok(Some(fields))
}

/// The fields to return: those requested, or all fields of the schema that are not vectors.
pub(super) fn returned_fields<'q>(query: &'q Query<'_>, schema: &'q Schema) -> Result<Vec<&'q str>, Error> {
    let Some(names) = query.fields else {
        let plain = schema.fields.iter().filter(|field| !matches!(field.kind, FieldKind::Vector(_)));
        return Ok(plain.map(|field| field.name.as_str()).collect());
    };
    for field in names {
        if schema.field(field).is_none() {
            return Err(field_not_found(query.collection, field, schema));
        }
    }
    Ok(names.iter().map(String::as_str).collect())
}

fn field_not_found(collection: &str, field: &str, schema: &Schema) -> Error {
    let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    error_mapping::query(engine::QueryError::FieldNotFound {
        collection: collection.to_owned(),
        field: field.to_owned(),
        known: known.join(", "),
    })
}

impl SearchCommand {
    /// Parses the reply.
    pub(super) fn parse(&self, value: Value) -> Result<ShardHits, Error> {
        const WHAT: &str = "hits of a search";
        let mut found = ShardHits::default();
        match value {
            Value::Map(parts) => {
                for (name, value) in parts {
                    match &*reply::text(name, WHAT)? {
                        "results" => {
                            for hit in reply::items(value, WHAT)? {
                                let (mut key, mut fields) = (None, Value::Nil);
                                for (name, value) in reply::pairs(hit, WHAT)? {
                                    match name {
                                        Value::SimpleString(name) if name == "id" => key = Some(value),
                                        Value::SimpleString(name) if name == "extra_attributes" => {
                                            fields = value
                                        }
                                        _ => {}
                                    }
                                }
                                self.add_hit(&mut found, key.ok_or_else(|| error::reply(WHAT))?, fields)?;
                            }
                        }
                        "warning" => reject_partial(value)?,
                        _ => {}
                    }
                }
            }
            other => {
                let mut items = reply::items(other, WHAT)?.into_iter();
                reply::integer(items.next().ok_or_else(|| error::reply(WHAT))?, WHAT)?;
                while let Some(key) = items.next() {
                    let fields = items.next().ok_or_else(|| error::reply(WHAT))?;
                    self.add_hit(&mut found, key, fields)?;
                }
            }
        }
        Ok(found)
    }

    fn add_hit(&self, found: &mut ShardHits, key: Value, fields: Value) -> Result<(), Error> {
        const WHAT: &str = "a hit of a search";
        let pairs = reply::pairs(fields, WHAT)?;
        let mut fields = Vec::with_capacity(pairs.len().saturating_sub(1));
        let mut distance = None;
        for (name, value) in pairs {
            let (name, value) = (reply::bytes(name, WHAT)?, reply::bytes(value, WHAT)?);
            if name == self.score_name.as_bytes() {
                let text = std::str::from_utf8(&value).map_err(|_| error::reply(WHAT))?;
                distance = Some(text.parse::<f32>().map_err(|_| error::reply(WHAT))?);
            } else {
                fields.push(Field { name: name.into(), value: value.into() });
            }
        }
        let Some(distance) = distance else {
            // The document expired or was deleted after it was found.
            found.vanished += 1;
            return Ok(());
        };
        let score = score(self.metric, distance);
        // A zero vector, which other clients can write, has no cosine distance.
        if distance.is_nan() || self.min_score.is_some_and(|min| score < min) {
            return Ok(());
        }
        let key = reply::bytes(key, WHAT)?.into();
        // A hit contains only part of the document: its sequence number and expiry have to be read
        // separately.
        let document = Document { key, seq: 0, expires_at_ms: None, fields };
        found.hits.push(Hit { document, passage: Some(0), distance: Some(distance), score });
        Ok(())
    }
}

/// Rejects a reply with a warning that hits are missing.
fn reject_partial(warnings: Value) -> Result<(), Error> {
    const WHAT: &str = "warnings of a search";
    let mut warnings = reply::items(warnings, WHAT)?.into_iter();
    let Some(warning) = warnings.next() else { return Ok(()) };
    Err(incomplete(&reply::text(warning, WHAT)?))
}

/// The error for a search that Redis did not finish.
pub(super) fn incomplete(reason: &str) -> Error {
    Error::unavailable("deadline", format!("Redis did not finish the search ({reason}): allow more time"))
}

/// `FT.SEARCH` for the number of matches only; `None` if the filter matches nothing.
pub(super) fn build_count(index: &str, filter: Option<&Filter>, time: Duration) -> Option<Cmd> {
    let text = match filter.map_or(SimplifiedFilter::MatchAll, simplify) {
        SimplifiedFilter::MatchNone => return None,
        SimplifiedFilter::MatchAll => "*".to_owned(),
        SimplifiedFilter::Filter(filter) => filter.to_string(),
    };
    let mut command = redis::cmd("FT.SEARCH");
    command.arg(index).arg(text).arg("LIMIT").arg(0).arg(0);
    command.arg("TIMEOUT").arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    command.arg("DIALECT").arg(2);
    Some(command)
}

/// Parses the reply to [`build_count`].
pub(super) fn parse_count(value: Value) -> Result<u64, Error> {
    const WHAT: &str = "a count";
    let total = match value {
        Value::Map(parts) => {
            let mut total = None;
            for (name, value) in parts {
                match &*reply::text(name, WHAT)? {
                    "total_results" => total = Some(value),
                    "warning" => reject_partial(value)?,
                    _ => {}
                }
            }
            total
        }
        other => reply::items(other, WHAT)?.into_iter().next(),
    };
    let total = reply::integer(total.ok_or_else(|| error::reply(WHAT))?, WHAT)?;
    Ok(total.unsigned_abs())
}

#[cfg(test)]
mod tests;
