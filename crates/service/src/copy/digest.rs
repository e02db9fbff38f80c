//! Comparing documents of two stores by content.
//!
//! The data directory stores a computed vector beside the document. Redis stores it in the hash, where
//! it cannot be distinguished from a vector that the caller provided. So a vector of an embedded field
//! is compared by its bytes, encoded as the field's type, wherever it is stored.

use engine::{Expected, encode_vector};
use sha2::{Digest as _, Sha256};

use super::{
    endpoint::StoredDocument,
    plan::{CopyPlan, PlannedCollection},
};
use crate::{
    VectorSchema,
    backend::{ComputedVector, Op},
    catalog::{CollectionHandle, vector_fields},
};

/// The SHA-256 of a document's key, fields and vectors. The expiry is compared separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DocumentDigest([u8; 32]);

impl DocumentDigest {
    /// The digest of a document in the source.
    pub(super) fn of_source(plan: &CopyPlan, stored: &StoredDocument) -> DocumentDigest {
        digest(plan, stored, |planned| &planned.from)
    }

    /// The digest of a document in the target.
    pub(super) fn of_target(plan: &CopyPlan, stored: &StoredDocument) -> DocumentDigest {
        digest(plan, stored, |planned| &planned.to)
    }

    /// The number to add to a sum over many documents.
    pub(super) fn sum(&self) -> u128 {
        u128::from_be_bytes(*self.0.first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

/// How the target's document differs from the source's; `None` if they are equal.
pub(super) fn difference(
    plan: &CopyPlan,
    source: &StoredDocument,
    target: &StoredDocument,
) -> Option<String> {
    if DocumentDigest::of_source(plan, source) != DocumentDigest::of_target(plan, target) {
        return Some("fields or vectors differ".to_owned());
    }
    let (expected, found) = (source.document.expires_at_ms, target.document.expires_at_ms);
    // The target's collection gives a default expiry to a document without one.
    let has_default = expected.is_none()
        && plan.collections_for_key(&source.document.key).any(|(_, planned)| planned.to.schema.ttl.is_some());
    let expiry = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), |ms| format!("at {ms} ms"));
    (expected != found && !(has_default && found.is_some()))
        .then(|| format!("it expires {}, but {} in the source", expiry(found), expiry(expected)))
}

/// The write that makes the target's document equal to the source's; `Err` says why it cannot be
/// copied.
pub(super) fn to_put(plan: &CopyPlan, stored: &StoredDocument, expected: Expected) -> Result<Op, String> {
    let StoredDocument { document, vectors } = stored;
    let mut computed = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let of = |planned: &&PlannedCollection| planned.from.version == vector.collection;
        let planned = plan.collections.iter().find(of).expect("vectors are read for planned collections");
        let name = &planned.from.schema.fields[usize::from(vector.field)].name;
        if let Some(models) = &planned.models
            && models.iter().any(|(field, model)| field == name && *model != vector.model)
        {
            return Err(format!(
                "its vector for field {name:?} was computed by another model than the previous ones, and Redis stores one \
                 model per collection: have the source re-embed its documents first"
            ));
        }
        let field = planned.to.schema.fields.iter().position(|field| field.name == *name);
        let field = field.expect("both schemas have the same fields");
        computed.push(ComputedVector {
            collection: planned.to.version,
            field: u16::try_from(field).expect("a validated schema is small"),
            ..vector.clone()
        });
    }
    Ok(Op::Put {
        key: document.key.to_vec(),
        fields: document.fields.clone(),
        expires_at_ms: document.expires_at_ms,
        vectors: computed,
        expected,
    })
}

fn digest<'p>(
    plan: &'p CopyPlan,
    stored: &'p StoredDocument,
    handle: impl Fn(&'p PlannedCollection) -> &'p CollectionHandle,
) -> DocumentDigest {
    let StoredDocument { document, vectors } = stored;
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(&document.key);
    let mut embedded: Vec<&str> = Vec::new();
    for (index, planned) in plan.collections_for_key(&document.key) {
        let collection = handle(planned);
        for (position, name, schema) in computed(collection) {
            embedded.push(name);
            let of = |vector: &&ComputedVector| {
                (vector.collection, usize::from(vector.field)) == (collection.version, position)
            };
            add(&(index as u64).to_le_bytes());
            add(name.as_bytes());
            match (document.field(name.as_bytes()), vectors.iter().find(of)) {
                (Some(own), _) => add(own),
                (None, Some(vector)) => add(&encode_vector(&vector.values, schema.vector_type)),
                (None, None) => add(&[]),
            }
        }
    }
    let plain = |name: &[u8]| !embedded.iter().any(|embedded| embedded.as_bytes() == name);
    let mut fields: Vec<(&[u8], &[u8])> =
        document.fields.iter().map(|field| (&*field.name, &*field.value)).collect();
    fields.retain(|(name, _)| plain(name));
    fields.sort_unstable();
    for (name, value) in fields {
        add(name);
        add(value);
    }
    DocumentDigest(hash.finalize().into())
}

/// The computed vector fields, with their positions in the schema.
fn computed(collection: &CollectionHandle) -> impl Iterator<Item = (usize, &str, &VectorSchema)> {
    vector_fields(&collection.schema).filter(|(_, vector)| vector.embed.is_some()).map(|(name, vector)| {
        let position = collection.schema.fields.iter().position(|field| field.name == name);
        (position.expect("it is one of the schema's fields"), name, vector)
    })
}
