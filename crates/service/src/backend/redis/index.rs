//! A collection as a RediSearch index: creating it from a schema, and comparing an existing one.

use redis::{Cmd, Value};

use super::{Error, Schema, reply};
use crate::{Algorithm, FieldKind, FieldSchema, Metric, Quantization, VectorSchema, VectorType};

/// The first search module version with FLOAT16 and BFLOAT16: 2.10.
const HALF_FLOATS_SINCE: u32 = 21_000;

/// Rejects a schema that a search module of version `search` does not support.
pub(super) fn check_supported(schema: &Schema, search: u32) -> Result<(), Error> {
    let own = super::metadata::KEY_PREFIX.as_bytes();
    for prefix in &schema.prefixes {
        if own.starts_with(prefix) || prefix.starts_with(own) {
            let display = String::from_utf8_lossy(prefix);
            return Err(Error::invalid(
                "schema",
                format!(
                    "prefix {display:?} covers Nearfield's own keys under \"nearfield:\": choose another prefix"
                ),
            )
            .at("prefixes"));
        }
    }
    for field in &schema.fields {
        let FieldKind::Vector(vector) = &field.kind else { continue };
        let what = match vector {
            VectorSchema { vector_type: VectorType::Int8, .. } => {
                "type INT8 is not supported by this Redis's search module: use FLOAT32, FLOAT16 or BFLOAT16"
            }
            VectorSchema { quantization: Quantization::Int8 | Quantization::Int4, .. } => {
                "quantization is not supported by Redis: leave it out, or use the embedded store"
            }
            VectorSchema { vector_type: VectorType::Float16 | VectorType::Bfloat16, .. }
                if search < HALF_FLOATS_SINCE =>
            {
                "this Redis's search module is older than 2.10 and supports only type FLOAT32"
            }
            _ => continue,
        };
        return Err(
            Error::invalid("schema", format!("VECTOR field {:?}: {what}", field.name)).at(&field.name)
        );
    }
    Ok(())
}

/// The `FT.CREATE` command.
pub(super) fn create_command(name: &str, schema: &Schema) -> Cmd {
    let mut command = redis::cmd("FT.CREATE");
    command.arg(name).arg("ON").arg("HASH").arg("PREFIX").arg(schema.prefixes.len());
    for prefix in &schema.prefixes {
        command.arg(prefix.as_slice());
    }
    command.arg("SCHEMA");
    for field in &schema.fields {
        command.arg(&field.name);
        match &field.kind {
            FieldKind::Text => {
                command.arg("TEXT");
            }
            FieldKind::Numeric => {
                command.arg("NUMERIC");
            }
            FieldKind::Tag { separator, case_sensitive } => {
                command.arg("TAG").arg("SEPARATOR").arg(&[*separator][..]);
                if *case_sensitive {
                    command.arg("CASESENSITIVE");
                }
            }
            FieldKind::Vector(vector) => vector_options(&mut command, vector),
        }
    }
    command
}

fn vector_options(command: &mut Cmd, vector: &VectorSchema) {
    let always = [
        ("TYPE", type_name(vector.vector_type).to_owned()),
        ("DIM", vector.dim.to_string()),
        ("DISTANCE_METRIC", metric_name(vector.metric).to_owned()),
    ];
    let (algorithm, graph) = match vector.algorithm {
        Algorithm::Flat => ("FLAT", Vec::new()),
        Algorithm::Hnsw { m, ef_construction, ef_search } => (
            "HNSW",
            vec![
                ("M", m.to_string()),
                ("EF_CONSTRUCTION", ef_construction.to_string()),
                ("EF_RUNTIME", ef_search.to_string()),
            ],
        ),
    };
    // The number of arguments, not of options.
    command.arg("VECTOR").arg(algorithm).arg(2 * (always.len() + graph.len()));
    for (option, value) in always.into_iter().chain(graph) {
        command.arg(option).arg(value);
    }
}

pub(super) fn type_name(vector_type: VectorType) -> &'static str {
    match vector_type {
        VectorType::Float32 => "FLOAT32",
        VectorType::Float16 => "FLOAT16",
        VectorType::Bfloat16 => "BFLOAT16",
        VectorType::Int8 => "INT8",
    }
}

fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "COSINE",
        Metric::Ip => "IP",
        Metric::L2 => "L2",
    }
}

/// Sizes above this are considered invalid, in MiB: more than any machine's memory.
const SIZE_MB_MAX: f64 = 1e9;

/// The `FT.INFO` of an index.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct IndexInfo {
    prefixes: Vec<Vec<u8>>,
    key_type: String,
    has_filter: bool,
    attributes: Vec<Attribute>,
    /// Documents in the index.
    pub(super) documents: u64,
    /// Fraction of the keys under its prefixes that have been scanned, 0 to 1.
    pub(super) percent_indexed: f64,
    /// Whether the keys that existed before the index are still being scanned.
    pub(super) is_scanning: bool,
    /// Number of times a hash could not be indexed.
    pub(super) failures: u64,
    /// Key and reason of the last failure.
    pub(super) last_failure: Option<String>,
    /// Memory used by the index.
    pub(super) memory_bytes: u64,
}

/// One field of an index.
#[derive(Clone, Debug, Default, PartialEq)]
struct Attribute {
    identifier: String,
    name: String,
    kind: String,
    /// Options by name, in upper case; the value of a flag is empty.
    options: Vec<(String, String)>,
}

impl Attribute {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }
}

impl IndexInfo {
    /// Parses the reply to `FT.INFO`.
    pub(super) fn parse(value: Value) -> Result<IndexInfo, Error> {
        const WHAT: &str = "FT.INFO";
        let mut info = IndexInfo { percent_indexed: 1.0, ..IndexInfo::default() };
        for (name, value) in reply::pairs(value, WHAT)? {
            match reply::text(name, WHAT)?.as_str() {
                "index_definition" => info.read_definition(value)?,
                "attributes" => {
                    info.attributes = reply::items(value, WHAT)?
                        .into_iter()
                        .map(read_attribute)
                        .collect::<Result<_, Error>>()?;
                }
                "num_docs" => info.documents = count(value)?,
                "hash_indexing_failures" => info.failures = count(value)?,
                "indexing" => info.is_scanning = count(value)? > 0,
                "percent_indexed" => info.percent_indexed = reply::number(value, WHAT)?,
                "Index Errors" => info.last_failure = last_failure(value)?,
                "inverted_sz_mb"
                | "vector_index_sz_mb"
                | "offset_vectors_sz_mb"
                | "doc_table_size_mb"
                | "sortable_values_size_mb"
                | "key_table_size_mb"
                | "tag_overhead_sz_mb"
                | "text_overhead_sz_mb" => {
                    let mb = reply::number(value, WHAT)?;
                    // RediSearch's counter may fall below zero, which it then reports as almost 2^64
                    // bytes.
                    if (0.0..SIZE_MB_MAX).contains(&mb) {
                        info.memory_bytes += (mb * f64::from(1 << 20)) as u64;
                    }
                }
                _ => {}
            }
        }
        if info.failures == 0 {
            info.last_failure = None;
        }
        Ok(info)
    }

    fn read_definition(&mut self, value: Value) -> Result<(), Error> {
        const WHAT: &str = "the definition of an index";
        for (name, value) in reply::pairs(value, WHAT)? {
            match reply::text(name, WHAT)?.as_str() {
                "key_type" => self.key_type = reply::text(value, WHAT)?,
                "prefixes" => {
                    self.prefixes = reply::items(value, WHAT)?
                        .into_iter()
                        .map(|prefix| reply::bytes(prefix, WHAT))
                        .collect::<Result<_, Error>>()?;
                }
                "filter" => self.has_filter = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// The sum of several indexes over different keys.
    pub(super) fn sum<'i>(infos: impl Iterator<Item = &'i IndexInfo>) -> IndexInfo {
        infos
            .fold(None, |sum: Option<IndexInfo>, info| {
                let Some(mut sum) = sum else { return Some(info.clone()) };
                let share = |info: &IndexInfo| info.documents as f64 / info.percent_indexed.max(0.001);
                let all = share(&sum) + share(info);
                sum.documents += info.documents;
                sum.percent_indexed = match (sum.percent_indexed, info.percent_indexed) {
                    (one, two) if one >= 1.0 && two >= 1.0 => 1.0,
                    // An index that has just started holds no documents but has all of them left to
                    // scan.
                    (one, two) => (sum.documents as f64 / all.max(1.0)).min(one.max(two)).min(0.999),
                };
                sum.is_scanning |= info.is_scanning;
                sum.failures += info.failures;
                sum.last_failure = sum.last_failure.or_else(|| info.last_failure.clone());
                sum.memory_bytes += info.memory_bytes;
                Some(sum)
            })
            .unwrap_or_default()
    }

    /// The approximate number of documents that are still to be indexed.
    pub(super) fn pending_documents(&self) -> u64 {
        if self.percent_indexed >= 1.0 {
            return 0;
        }
        let share = self.percent_indexed.max(0.001);
        ((self.documents as f64 / share) - self.documents as f64).ceil().max(1.0) as u64
    }

    /// The first difference between the index and `schema`, if there is one. `EF_RUNTIME`, which
    /// FT.INFO does not report, is passed with every search.
    pub(super) fn difference(&self, schema: &Schema) -> Option<String> {
        if self.key_type != "HASH" {
            return Some(format!("it is on {}, not on HASH", self.key_type));
        }
        if self.has_filter {
            return Some("it has a FILTER, which excludes documents".to_owned());
        }
        let sorted = |prefixes: &[Vec<u8>]| {
            let mut prefixes = prefixes.to_vec();
            prefixes.sort_unstable();
            prefixes
        };
        if sorted(&self.prefixes) != sorted(&schema.prefixes) {
            let display = |prefixes: &[Vec<u8>]| {
                let display: Vec<String> =
                    prefixes.iter().map(|prefix| format!("{:?}", String::from_utf8_lossy(prefix))).collect();
                display.join(", ")
            };
            return Some(format!(
                "its prefixes are {}, not {}",
                display(&self.prefixes),
                display(&schema.prefixes)
            ));
        }
        for field in &schema.fields {
            let Some(attribute) = self.attributes.iter().find(|attribute| attribute.name == field.name)
            else {
                return Some(format!("it has no field {:?}", field.name));
            };
            if let Some(difference) = attribute.difference(field) {
                return Some(format!("field {:?}: {difference}", field.name));
            }
        }
        let additional = self.attributes.iter().find(|attribute| schema.field(&attribute.name).is_none());
        additional.map(|attribute| format!("it has an additional field {:?}", attribute.name))
    }
}

impl Attribute {
    fn difference(&self, field: &FieldSchema) -> Option<String> {
        if self.identifier != self.name {
            return Some(format!("it is an alias of {:?}", self.identifier));
        }
        let differs = |what: &str, found: Option<&str>, wanted: &str| {
            (found != Some(wanted)).then(|| format!("{what} is {}, not {wanted}", found.unwrap_or("unknown")))
        };
        let kind = |wanted| differs("its kind", Some(&self.kind), wanted);
        match &field.kind {
            FieldKind::Text => kind("TEXT"),
            FieldKind::Numeric => kind("NUMERIC"),
            FieldKind::Tag { separator, case_sensitive } => {
                let separator = char::from(*separator).to_string();
                kind("TAG").or_else(|| differs("SEPARATOR", self.option("SEPARATOR"), &separator)).or_else(
                    || {
                        let found = self.option("CASESENSITIVE").is_some();
                        (found != *case_sensitive)
                            .then(|| format!("it is {}CASESENSITIVE", if found { "" } else { "not " }))
                    },
                )
            }
            FieldKind::Vector(vector) => {
                let (algorithm, graph) = match vector.algorithm {
                    Algorithm::Flat => ("FLAT", None),
                    Algorithm::Hnsw { m, ef_construction, .. } => ("HNSW", Some((m, ef_construction))),
                };
                let option = |name, wanted: &str| differs(name, self.option(name), wanted);
                kind("VECTOR")
                    .or_else(|| option("ALGORITHM", algorithm))
                    .or_else(|| option("DATA_TYPE", type_name(vector.vector_type)))
                    .or_else(|| option("DIM", &vector.dim.to_string()))
                    .or_else(|| option("DISTANCE_METRIC", metric_name(vector.metric)))
                    .or_else(|| graph.and_then(|(m, _)| option("M", &m.to_string())))
                    .or_else(|| graph.and_then(|(_, ef)| option("EF_CONSTRUCTION", &ef.to_string())))
            }
        }
        .or_else(|| {
            let hidden = self.option("NOINDEX").is_some();
            hidden.then(|| "it is NOINDEX".to_owned())
        })
    }
}

/// Parses one attribute. RESP3 sends a map with the flags in a list; RESP2 sends alternating names and
/// values, then the flags without values.
fn read_attribute(value: Value) -> Result<Attribute, Error> {
    const WHAT: &str = "a field of an index";
    const FLAGS: [&str; 8] = [
        "CASESENSITIVE",
        "NOINDEX",
        "SORTABLE",
        "UNF",
        "NOSTEM",
        "WITHSUFFIXTRIE",
        "INDEXEMPTY",
        "INDEXMISSING",
    ];
    let mut attribute = Attribute::default();
    let mut take = |name: String, value: String| match name.as_str() {
        "identifier" => attribute.identifier = value,
        "attribute" => attribute.name = value,
        "type" => attribute.kind = value,
        _ => attribute.options.push((name.to_ascii_uppercase(), value)),
    };
    match value {
        Value::Map(pairs) => {
            for (name, value) in pairs {
                let name = reply::text(name, WHAT)?;
                if name == "flags" {
                    for flag in reply::items(value, WHAT)? {
                        take(reply::text(flag, WHAT)?, String::new());
                    }
                } else {
                    take(name, reply::text(value, WHAT)?);
                }
            }
        }
        other => {
            let mut words = reply::items(other, WHAT)?.into_iter();
            while let Some(name) = words.next() {
                let name = reply::text(name, WHAT)?;
                // A field may have the name of a flag; its name follows `identifier`.
                if FLAGS.contains(&name.as_str()) {
                    take(name, String::new());
                } else {
                    let value = words.next().map_or(Ok(String::new()), |value| reply::text(value, WHAT))?;
                    take(name, value);
                }
            }
        }
    }
    Ok(attribute)
}

fn count(value: Value) -> Result<u64, Error> {
    // RESP2 sends some counts as decimals.
    Ok(reply::number(value, "a count of FT.INFO")?.max(0.0) as u64)
}

fn last_failure(value: Value) -> Result<Option<String>, Error> {
    const WHAT: &str = "the errors of an index";
    let (mut key, mut reason) = (String::new(), String::new());
    for (name, value) in reply::pairs(value, WHAT)? {
        match reply::text(name, WHAT)?.as_str() {
            "last indexing error" => reason = reply::text(value, WHAT)?,
            "last indexing error key" => key = reply::text(value, WHAT)?,
            _ => {}
        }
    }
    Ok((key != "N/A" && !key.is_empty()).then(|| format!("document {key:?}: {reason}")))
}

#[cfg(test)]
mod tests;
