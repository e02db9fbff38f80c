//! Collections: creating, changing, dropping, and completing them in the background.

mod article;
pub(crate) mod backfill;
mod staleness;

pub use article::{MODEL, article_schema};

use crate::{
    Algorithm, CollectionInfo, Context, DropMode, Error, FieldKind, Quantization, Schema, Service,
    VectorSchema, VectorType,
    backend::Fingerprints,
    catalog::vector_fields,
    models::{self, Models},
};

impl Service {
    /// The collection meant where none is named: the only one there is.
    pub fn default_collection(&self) -> Result<String, Error> {
        Ok(self.shared().resolve(None)?.name.clone())
    }

    /// All collections.
    pub async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>, Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.collections(&call).await
    }

    /// The documents of a collection on each primary of a Redis Cluster, as last seen; nothing where
    /// one place holds them all. Waits for nothing.
    pub fn shards(&self, name: &str) -> Vec<(String, u64)> {
        self.shared().backend.shards(name)
    }

    /// One collection, by name or alias.
    pub async fn collection(&self, cx: &Context, name: &str) -> Result<CollectionInfo, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(name))?;
        self.shared().backend.collection(&call, &known.name).await
    }

    /// The schema of a collection, by name or alias. Never waits.
    pub fn schema(&self, name: &str) -> Result<Schema, Error> {
        Ok(self.shared().resolve(Some(name))?.schema.clone())
    }

    /// How the index holds a field's vectors where nobody says: as it does, if the collection stands
    /// and has the field; for a new one by 8-bit codes, where they answer as well as the vectors
    /// themselves (graphs of FLOAT32 and FLOAT16) and the index is our own.
    pub fn default_quantization(&self, collection: &str, field: &str, vector: &VectorSchema) -> Quantization {
        let standing = self.schema(collection).ok().and_then(|schema| {
            let mut vectors = schema.fields.into_iter().filter(|standing| standing.name == field);
            match vectors.next()?.kind {
                FieldKind::Vector(standing) => Some(standing.quantization),
                _ => None,
            }
        });
        standing.unwrap_or(match self.shared().backend.is_embedded() {
            true => default_quantization(vector),
            false => Quantization::None,
        })
    }

    /// Values in the vectors of a model, which is loaded if it was not yet.
    pub async fn model_dim(&self, cx: &Context, model: &str) -> Result<usize, Error> {
        let call = self.shared().begin(cx)?;
        models::check_name(model)?;
        let (models, model) = (self.shared().models.clone(), model.to_owned());
        call.administer(move || Ok(models.get(&model)?.dim())).await
    }

    /// Makes a collection, or finds an equal one; `true` if it was made. With `rebuild`, one
    /// with another schema is rebuilt beside itself in the background and switched when complete.
    /// Its models are loaded first: one that is missing is `Unavailable`.
    pub async fn put_collection(
        &self,
        cx: &Context,
        name: &str,
        schema: Schema,
        rebuild: bool,
    ) -> Result<(CollectionInfo, bool), Error> {
        let call = self.shared().begin(cx)?;
        // One at a time, so that of two equal calls only one made it.
        let _making = call.within(self.inner.making.lock()).await?;
        let (models, checked) = (self.shared().models.clone(), schema.clone());
        let fingerprints = call.administer(move || check_models(&models, &checked)).await?;
        self.shared().backend.put_collection(&call, name, schema, rebuild, fingerprints).await
    }

    /// Drops a collection, by its own name.
    pub async fn drop_collection(&self, cx: &Context, name: &str, documents: DropMode) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.drop_collection(&call, name, documents).await
    }

    /// Points an alias at a collection, given by its own name.
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

/// How an index of our own holds a new field's vectors where nobody says.
pub(crate) fn default_quantization(vector: &VectorSchema) -> Quantization {
    let is_wide = matches!(vector.vector_type, VectorType::Float32 | VectorType::Float16);
    match vector.algorithm {
        Algorithm::Hnsw { .. } if is_wide => Quantization::Int8,
        _ => Quantization::None,
    }
}

/// Whether every model a schema names is there and makes vectors that its field can hold; what
/// each field is computed by.
fn check_models(loaded: &Models, schema: &Schema) -> Result<Fingerprints, Error> {
    let mut fingerprints = Vec::new();
    for (field, vector) in vector_fields(schema) {
        let Some(embed) = &vector.embed else { continue };
        if vector.vector_type == VectorType::Int8 {
            return Err(Error::invalid(
                "vector-type",
                format!(
                    "field {field:?} is computed by a model, whose values lie between -1 and 1: type INT8 would round them away; use FLOAT32, FLOAT16 or BFLOAT16"
                ),
            )
            .at(field));
        }
        models::check_name(&embed.model).map_err(|error| error.at(field))?;
        let model = loaded.get(&embed.model)?;
        if model.dim() != vector.dim {
            return Err(Error::invalid(
                "vector-dimensions",
                format!(
                    "vector dimensions do not match: field {field:?} has dim {}, but model {:?} makes vectors of {}",
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
