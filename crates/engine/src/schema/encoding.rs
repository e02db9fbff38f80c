//! The binary format of schemas.
//!
//! Format 1, little-endian: the byte 1; prefixes (count, then each after its length); ttl in milliseconds, all ones
//! for none; fields (count, then each: name, byte of the kind, options). Counts and lengths have 32 bits.

use std::time::Duration;

use index::{Metric, VectorType};

use super::{Algorithm, Embedding, FieldKind, FieldSchema, Quantization, Schema, VectorSchema};
use crate::binary::{ByteReader, DecodeError, write_bytes};

const FORMAT: u8 = 1;
const NO_TTL: u64 = u64::MAX;

/// Encodes a schema. Equal schemas have equal bytes.
pub(crate) fn encode(schema: &Schema) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_count(&mut out, schema.prefixes.len());
    for prefix in &schema.prefixes {
        write_bytes(&mut out, prefix);
    }
    let ttl_ms = schema
        .ttl
        .map_or(NO_TTL, |ttl| u64::try_from(ttl.as_millis()).expect("a validated ttl is at most TTL_MAX"));
    out.extend_from_slice(&ttl_ms.to_le_bytes());
    put_count(&mut out, schema.fields.len());
    for field in &schema.fields {
        write_bytes(&mut out, field.name.as_bytes());
        put_kind(&mut out, &field.kind);
    }
    out
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a validated schema is small");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_kind(out: &mut Vec<u8>, kind: &FieldKind) {
    match kind {
        FieldKind::Text => out.push(0),
        FieldKind::Tag { separator, case_sensitive } => {
            out.extend_from_slice(&[1, *separator, u8::from(*case_sensitive)])
        }
        FieldKind::Numeric => out.push(2),
        FieldKind::Vector(vector) => {
            out.push(3);
            put_vector(out, vector);
        }
    }
}

fn put_vector(out: &mut Vec<u8>, vector: &VectorSchema) {
    match vector.algorithm {
        Algorithm::Flat => out.push(0),
        Algorithm::Hnsw { m, ef_construction, ef_search } => {
            out.push(1);
            for number in [m, ef_construction, ef_search] {
                put_count(out, number);
            }
        }
    }
    out.push(match vector.vector_type {
        VectorType::Float32 => 0,
        VectorType::Float16 => 1,
        VectorType::Bfloat16 => 2,
        VectorType::Int8 => 3,
    });
    out.push(match vector.quantization {
        Quantization::None => 0,
        Quantization::Int8 => 1,
        Quantization::Int4 => 2,
    });
    put_count(out, vector.dim);
    out.push(match vector.metric {
        Metric::Cosine => 0,
        Metric::Ip => 1,
        Metric::L2 => 2,
    });
    match &vector.embed {
        None => out.push(0),
        Some(embed) => {
            out.push(1);
            put_count(out, embed.fields.len());
            for field in &embed.fields {
                write_bytes(out, field.as_bytes());
            }
            write_bytes(out, embed.model.as_bytes());
        }
    }
}

/// Decodes a schema.
pub(crate) fn decode(bytes: &[u8]) -> Result<Schema, DecodeError> {
    let mut input = ByteReader::new(bytes);
    if input.u8()? != FORMAT {
        return Err(input.malformed("unknown format of a schema"));
    }
    // Nothing is allocated from a decoded count: a wrong one reaches the end of the input first.
    let mut prefixes = Vec::new();
    for _ in 0..input.u32()? {
        prefixes.push(input.bytes()?.to_vec());
    }
    let ttl = match input.u64()? {
        NO_TTL => None,
        ttl_ms => Some(Duration::from_millis(ttl_ms)),
    };
    let mut fields = Vec::new();
    for _ in 0..input.u32()? {
        fields.push(FieldSchema { name: input.text()?, kind: take_kind(&mut input)? });
    }
    input.end()?;
    Ok(Schema { prefixes, fields, ttl })
}

fn take_kind(input: &mut ByteReader<'_>) -> Result<FieldKind, DecodeError> {
    Ok(match input.u8()? {
        0 => FieldKind::Text,
        1 => FieldKind::Tag { separator: input.u8()?, case_sensitive: take_flag(input)? },
        2 => FieldKind::Numeric,
        3 => FieldKind::Vector(take_vector(input)?),
        _ => return Err(input.malformed("unknown kind of field")),
    })
}

fn take_flag(input: &mut ByteReader<'_>) -> Result<bool, DecodeError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(input.malformed("neither 0 nor 1")),
    }
}

fn take_vector(input: &mut ByteReader<'_>) -> Result<VectorSchema, DecodeError> {
    let algorithm = match input.u8()? {
        0 => Algorithm::Flat,
        1 => Algorithm::Hnsw {
            m: input.u32()? as usize,
            ef_construction: input.u32()? as usize,
            ef_search: input.u32()? as usize,
        },
        _ => return Err(input.malformed("unknown algorithm")),
    };
    let vector_type = match input.u8()? {
        0 => VectorType::Float32,
        1 => VectorType::Float16,
        2 => VectorType::Bfloat16,
        3 => VectorType::Int8,
        _ => return Err(input.malformed("unknown vector type")),
    };
    let quantization = match input.u8()? {
        0 => Quantization::None,
        1 => Quantization::Int8,
        2 => Quantization::Int4,
        _ => return Err(input.malformed("unknown quantization")),
    };
    let dim = input.u32()? as usize;
    let metric = match input.u8()? {
        0 => Metric::Cosine,
        1 => Metric::Ip,
        2 => Metric::L2,
        _ => return Err(input.malformed("unknown metric")),
    };
    let embed = if take_flag(input)? {
        let mut fields = Vec::new();
        for _ in 0..input.u32()? {
            fields.push(input.text()?);
        }
        Some(Embedding { fields, model: input.text()? })
    } else {
        None
    };
    Ok(VectorSchema { algorithm, vector_type, quantization, dim, metric, embed })
}
