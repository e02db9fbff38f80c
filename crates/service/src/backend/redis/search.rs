//! A search by vector: asked of RediSearch, its reply read.

use std::time::Duration;

use engine::{Hit, Page, VectorLeg, encode_vector, score};
use redis::{Cmd, Pipeline, Value};

use super::{
    Document, Error, Field, Filter, Query, Schema, error,
    filter::{MATCH_NONE, SimplifiedFilter, simplify},
    reply,
};
use crate::{Algorithm, ErrorKind, FieldKind, Metric, VectorSchema, refusal};

/// What a hit's distance is called in a reply: a name no field of the schema has.
fn score_name(schema: &Schema) -> String {
    let mut name = "__score".to_owned();
    while schema.field(&name).is_some() {
        name.push('_');
    }
    name
}

/// A search as it is asked.
pub(super) struct SearchCommand {
    pub(super) command: Cmd,
    score_name: String,
    metric: Metric,
    min_score: Option<f32>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct ShardHits {
    /// Nearest first.
    pub(super) hits: Vec<Hit>,
    /// Documents that were found but had gone when they were to be read.
    pub(super) vanished: usize,
}

/// Asks an index for what `query` asks; `None` if its filter lets nothing through. `ef_search` and `k`
/// are within their limits, and the vector fits.
///
/// An index that is but a part of the whole is asked for what goes before the page too, and for no fields:
/// only the nearest of all parts are worth reading. (It could not give them: within a search Redis 7.4
/// looks documents up in the slot of the index's name, and finds none.)
pub(super) fn build_search(
    query: &Query<'_>,
    index: &str,
    schema: &Schema,
    time: Duration,
    is_part: bool,
) -> Result<Option<SearchCommand>, Error> {
    let leg = query.vector_leg().map_err(refusal::query)?;
    let name = leg.field.expect("the service names the field to search");
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

/// The query in RediSearch's language.
fn query_text(
    leg: &VectorLeg<'_>,
    vector: &VectorSchema,
    name: &str,
    filter: Option<&Filter>,
    window: usize,
    score_name: &str,
) -> String {
    let mut how = String::new();
    let mut filter = filter.map(Filter::to_string);
    if let Algorithm::Hnsw { ef_search, .. } = vector.algorithm {
        if leg.exact {
            // Comparing with every vector is a way to work through a filter, so there has to be
            // one: this lets everybody through.
            filter = filter.or_else(|| Some(format!("-{MATCH_NONE}")));
            how.push_str(" HYBRID_POLICY ADHOC_BF");
        } else {
            let ef = leg.ef_search.unwrap_or(ef_search).max(window);
            how = format!(" EF_RUNTIME {ef}");
        }
    }
    let filter = filter.map_or_else(|| "*".to_owned(), |filter| format!("({filter})"));
    format!("{filter}=>[KNN {window} @{} $v{how} AS {score_name}]", escape(name))
}

/// A field's name as the query language takes it.
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

/// Asks for the fields of a hit, and whether it still stands: two commands.
pub(super) fn add_fetch(pipeline: &mut Pipeline, key: &[u8], wanted: &[&str]) {
    pipeline.cmd("EXISTS").arg(key);
    if wanted.is_empty() {
        pipeline.cmd("PING");
    } else {
        pipeline.cmd("HMGET").arg(key).arg(wanted);
    }
}

/// Reads the replies to these; `None` if it stands no more.
pub(super) fn parse_fields(
    stands: Value,
    values: Value,
    wanted: &[&str],
) -> Result<Option<Vec<Field>>, Error> {
    const WHAT: &str = "fields of a hit";
    if reply::integer(stands, WHAT)? == 0 {
        return Ok(None);
    }
    if wanted.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let values = match reply::items(values, WHAT) {
        // Something else stands there by now.
        Err(error) if error.kind == ErrorKind::Conflict => return Ok(None),
        values => values?,
    };
    if values.len() != wanted.len() {
        return Err(error::reply(WHAT));
    }
    let mut fields = Vec::with_capacity(wanted.len());
    for (name, value) in wanted.iter().zip(values) {
        if value != Value::Nil {
            fields.push(Field { name: name.as_bytes().into(), value: reply::bytes(value, WHAT)?.into() });
        }
    }
    Ok(Some(fields))
}

/// The fields to return: those asked for, or all of the schema but vectors.
pub(super) fn returned_fields<'q>(query: &'q Query<'_>, schema: &'q Schema) -> Result<Vec<&'q str>, Error> {
    let Some(wanted) = query.fields else {
        let plain = schema.fields.iter().filter(|field| !matches!(field.kind, FieldKind::Vector(_)));
        return Ok(plain.map(|field| field.name.as_str()).collect());
    };
    for field in wanted {
        if schema.field(field).is_none() {
            return Err(field_not_found(query.collection, field, schema));
        }
    }
    Ok(wanted.iter().map(String::as_str).collect())
}

fn field_not_found(collection: &str, field: &str, schema: &Schema) -> Error {
    let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    refusal::query(engine::QueryError::FieldNotFound {
        collection: collection.to_owned(),
        field: field.to_owned(),
        known: known.join(", "),
    })
}

impl SearchCommand {
    /// Reads the reply.
    pub(super) fn parse(&self, value: Value) -> Result<ShardHits, Error> {
        const WHAT: &str = "hits of a search";
        let mut hits = ShardHits::default();
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
                                self.add_hit(&mut hits, key.ok_or_else(|| error::reply(WHAT))?, fields)?;
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
                    self.add_hit(&mut hits, key, fields)?;
                }
            }
        }
        Ok(hits)
    }

    fn add_hit(&self, hits: &mut ShardHits, key: Value, fields: Value) -> Result<(), Error> {
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
            // It expired or was deleted between being found and being read.
            hits.vanished += 1;
            return Ok(());
        };
        let score = score(self.metric, distance);
        // A vector of zeros, which others can write, has no cosine.
        if distance.is_nan() || self.min_score.is_some_and(|min| score < min) {
            return Ok(());
        }
        let key = reply::bytes(key, WHAT)?.into();
        // A hit is a part of the document: whoever wants its number or its end reads it.
        let document = Document { key, seq: 0, expires_at_ms: None, fields };
        hits.hits.push(Hit { document, passage: Some(0), distance: Some(distance), score });
        Ok(())
    }
}

/// Refuses hits that are not all there are.
fn reject_partial(warnings: Value) -> Result<(), Error> {
    const WHAT: &str = "warnings of a search";
    let mut warnings = reply::items(warnings, WHAT)?.into_iter();
    let Some(warning) = warnings.next() else { return Ok(()) };
    Err(incomplete(&reply::text(warning, WHAT)?))
}

/// The refusal of hits that Redis did not look for to the end.
pub(super) fn incomplete(why: &str) -> Error {
    Error::unavailable("deadline", format!("Redis did not finish the search ({why}): give it more time"))
}

/// `FT.SEARCH` for the count of what matches alone; `None` if the filter lets nothing through.
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

/// Reads the reply to it.
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
