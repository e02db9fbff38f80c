//! The verbs of collections.

use super::{
    CollectionInfo, Context, Documents, Error, Schema, Service, VectorType, catalog::vector_fields, models,
    refusal, shared::Shared,
};

impl Service {
    /// The collection meant where none is named: the only one there is.
    pub fn default_collection(&self) -> Result<String, Error> {
        Ok(self.shared().resolve(None)?.name.clone())
    }

    /// All collections.
    pub async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>, Error> {
        let call = self.shared().begin(cx)?;
        self.shared().run(&call, |shared| Ok(shared.backend.collections())).await
    }

    /// One collection, by name or alias.
    pub async fn collection(&self, cx: &Context, name: &str) -> Result<CollectionInfo, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(name))?;
        self.shared().run(&call, move |shared| shared.backend.collection(&known.name)).await
    }

    /// The schema of a collection, by name or alias. Never waits.
    pub fn schema(&self, name: &str) -> Result<Schema, Error> {
        Ok(self.shared().resolve(Some(name))?.schema.clone())
    }

    /// Values in the vectors of a model, which is loaded if it was not yet.
    pub async fn model_dim(&self, cx: &Context, model: &str) -> Result<usize, Error> {
        let call = self.shared().begin(cx)?;
        models::check_name(model)?;
        let model = model.to_owned();
        self.shared().run(&call, move |shared| Ok(shared.models.get(&model)?.dim())).await
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
        let name = name.to_owned();
        let made = self
            .shared()
            .run(&call, move |shared| {
                check_models(shared, &schema)?;
                let result = put(shared, &name, schema, rebuild);
                shared.refresh_catalog();
                result
            })
            .await?;
        self.inner.embedder.wake();
        Ok(made)
    }

    /// Drops a collection, by its own name.
    pub async fn drop_collection(&self, cx: &Context, name: &str, documents: Documents) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        let name = name.to_owned();
        self.change_names(&call, move |shared| shared.backend.drop_collection(&name, documents)).await
    }

    /// Points an alias at a collection, given by its own name.
    pub async fn put_alias(&self, cx: &Context, alias: &str, collection: &str) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        let (alias, collection) = (alias.to_owned(), collection.to_owned());
        self.change_names(&call, move |shared| shared.backend.set_alias(&alias, &collection)).await
    }

    /// Removes an alias.
    pub async fn drop_alias(&self, cx: &Context, alias: &str) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        let alias = alias.to_owned();
        self.change_names(&call, move |shared| shared.backend.remove_alias(&alias)).await
    }

    async fn change_names(
        &self,
        call: &super::call::Call,
        change: impl FnOnce(&Shared) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let change = move |shared: &Shared| {
            let result = change(shared);
            shared.refresh_catalog();
            result
        };
        self.shared().run(call, change).await
    }
}

fn put(shared: &Shared, name: &str, schema: Schema, rebuild: bool) -> Result<(CollectionInfo, bool), Error> {
    let stood = shared.backend.collection(name).is_ok();
    match shared.backend.create_collection(name, schema.clone()) {
        Ok(info) => Ok((info, !stood)),
        Err(error) if rebuild && error.code == refusal::COLLECTION_EXISTS => {
            Ok((shared.backend.rebuild_collection(name, schema)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Whether every model a schema names is there and makes vectors that its field can hold.
fn check_models(shared: &Shared, schema: &Schema) -> Result<(), Error> {
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
        let model = shared.models.get(&embed.model)?;
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
    }
    Ok(())
}
