//! Collections: create, change and drop them, and compute their missing vectors in the background.

mod article;
pub(crate) mod backfill;
mod staleness;

pub use article::{MODEL, article_schema};

use crate::{
    Algorithm, CollectionInfo, Context, DropMode, Error, ErrorKind, FieldKind, Quantization, Schema, Service,
    VectorSchema, VectorType,
    backend::Fingerprints,
    catalog::vector_fields,
    models::{self, Models},
};

impl Service {
    /// The collection used when a request names none: the only one that exists.
    pub fn default_collection(&self) -> Result<String, Error> {
        Ok(self.shared().resolve(None)?.name.clone())
    }

    /// All collections.
    pub async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>, Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.collections(&call).await
    }

    /// The number of a collection's documents on each primary of a Redis Cluster, from the last
    /// refresh; empty for a single store. Does not block.
    pub fn shards(&self, name: &str) -> Vec<(String, u64)> {
        self.shared().backend.shards(name)
    }

    /// One collection, by name or alias.
    pub async fn collection(&self, cx: &Context, name: &str) -> Result<CollectionInfo, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(name))?;
        self.shared().backend.collection(&call, &collection.name).await
    }

    /// Whether documents of the collection with this name or alias may also belong to another collection that has no name
    /// or alias for which `may_read` returns true. Does not block.
    pub fn shares_documents(&self, name: &str, may_read: impl Fn(&str) -> bool) -> Result<bool, Error> {
        let collection = self.shared().resolve(Some(name))?;
        Ok(self.shared().catalog().shares_documents(&collection, may_read))
    }

    /// The schema of a collection, by name or alias. Does not block.
    pub fn schema(&self, name: &str) -> Result<Schema, Error> {
        Ok(self.shared().resolve(Some(name))?.schema.clone())
    }

    /// The quantization of a field when the caller specifies none. An existing field keeps its own.
    /// A new field of the embedded store uses 8-bit codes where they match the recall of the vectors
    /// themselves: HNSW over FLOAT32 or FLOAT16.
    pub fn default_quantization(&self, collection: &str, field: &str, vector: &VectorSchema) -> Quantization {
        let existing = self.schema(collection).ok().and_then(|schema| {
            let mut vectors = schema.fields.into_iter().filter(|existing| existing.name == field);
            match vectors.next()?.kind {
                FieldKind::Vector(existing) => Some(existing.quantization),
                _ => None,
            }
        });
        existing.unwrap_or(match self.shared().backend.is_embedded() {
            true => default_quantization(vector),
            false => Quantization::None,
        })
    }

    /// Names of the other collections that can share documents with this one, because a key can start with prefixes of
    /// both. Takes a name or an alias. Does not block.
    pub fn overlapping(&self, name: &str) -> Result<Vec<String>, Error> {
        let catalog = self.shared().catalog();
        let collection = self.shared().resolve(Some(name))?;
        let others = catalog.overlapping(&collection.name, &collection.schema);
        Ok(others.map(|other| other.name.clone()).collect())
    }

    /// The dimension of a model's vectors. Loads the model if needed.
    pub async fn model_dim(&self, cx: &Context, model: &str) -> Result<usize, Error> {
        let call = self.shared().begin(cx)?;
        models::check_name(model)?;
        let (models, model) = (self.shared().models.clone(), model.to_owned());
        call.administer(move || Ok(models.get(&model)?.dim())).await
    }

    /// Creates a collection; returns `true` if it was created, `false` if an identical one exists. Without prefixes it
    /// has the default one, its name and a colon, which must not overlap with those of another collection.
    /// With `rebuild`, an existing collection with another schema is rebuilt in the background and
    /// switched to the new version when that is complete. The collection's models are loaded first;
    /// a missing model fails with `Unavailable`.
    pub async fn put_collection(
        &self,
        cx: &Context,
        name: &str,
        mut schema: Schema,
        rebuild: bool,
    ) -> Result<(CollectionInfo, bool), Error> {
        let call = self.shared().begin(cx)?;
        // Serialized, so that only one of two identical calls reports that it created the collection, and no two
        // collections with overlapping default prefixes are created at the same time.
        let _guard = call.within(self.inner.put_collection_lock.lock()).await?;
        if schema.prefixes.is_empty() {
            schema.prefixes = vec![format!("{name}:").into_bytes()];
            self.check_default_prefix(name, &schema)?;
        }
        let (models, to_check) = (self.shared().models.clone(), schema.clone());
        let fingerprints = call.administer(move || check_models(&models, &to_check)).await?;
        self.shared().backend.put_collection(&call, name, schema, rebuild, fingerprints).await
    }

    /// Rejects a new collection whose default prefix overlaps with a prefix of another one.
    fn check_default_prefix(&self, name: &str, schema: &Schema) -> Result<(), Error> {
        let catalog = self.shared().catalog();
        let is_new = !catalog.has(name);
        let Some(other) = catalog.overlapping(name, schema).next().filter(|_| is_new) else { return Ok(()) };
        let quoted = |prefix: &Vec<u8>| format!("{:?}", String::from_utf8_lossy(prefix));
        let prefixes: Vec<String> = other.schema.prefixes.iter().map(quoted).collect();
        let message = format!(
            "the default prefix \"{name}:\" overlaps with collection {:?}, whose documents start with {}: the two would share documents; choose another name, or state \"prefixes\"",
            other.name,
            prefixes.join(" or ")
        );
        Err(Error::new(ErrorKind::Conflict, "prefix-overlap", message).at("prefixes"))
    }

    /// Drops a collection. Does not accept an alias.
    pub async fn drop_collection(&self, cx: &Context, name: &str, documents: DropMode) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.drop_collection(&call, name, documents).await
    }

    /// Points an alias at a collection, which must be given by name, not by another alias.
    pub async fn put_alias(&self, cx: &Context, alias: &str, collection: &str) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.set_alias(&call, alias, collection).await
    }

    /// Removes an alias.
    pub async fn drop_alias(&self, cx: &Context, alias: &str) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.remove_alias(&call, alias).await
    }
}

/// The default quantization of a new field in the embedded store.
pub(crate) fn default_quantization(vector: &VectorSchema) -> Quantization {
    let is_wide = matches!(vector.vector_type, VectorType::Float32 | VectorType::Float16);
    match vector.algorithm {
        Algorithm::Hnsw { .. } if is_wide => Quantization::Int8,
        _ => Quantization::None,
    }
}

/// Checks that every model of the schema is installed and produces vectors of its field's type and
/// dimension. Returns the model fingerprint of each computed field.
fn check_models(models: &Models, schema: &Schema) -> Result<Fingerprints, Error> {
    let mut fingerprints = Vec::new();
    for (field, vector) in vector_fields(schema) {
        let Some(embed) = &vector.embed else { continue };
        if vector.vector_type == VectorType::Int8 {
            return Err(Error::invalid(
                "vector-type",
                format!(
                    "field {field:?} cannot have type INT8: a model computes its values, which are between -1 and 1 and would round to integers; use FLOAT32, FLOAT16 or BFLOAT16"
                ),
            )
            .at(field));
        }
        models::check_name(&embed.model).map_err(|error| error.at(field))?;
        let model = models.get(&embed.model)?;
        if model.dim() != vector.dim {
            return Err(Error::invalid(
                "vector-dimensions",
                format!(
                    "vector dimensions do not match: field {field:?} has dim {}, but model {:?} produces vectors of {}",
                    vector.dim,
                    embed.model,
                    model.dim()
                ),
            )
            .at(field));
        }
        fingerprints.push((field.to_owned(), model.fingerprint().0));
    }
    fingerprints.sort_unstable();
    Ok(fingerprints)
}
