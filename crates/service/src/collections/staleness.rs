//! Detection of stale vectors: those computed by another model than the installed one. They are
//! not comparable with a query's vector.

use crate::{
    Document, Error,
    backend::{Fingerprints, TextToEmbed},
    catalog::{CollectionHandle, models, vector_fields},
    models::MODEL_MISSING,
    shared::Shared,
};

/// Documents examined per collection. They are the first of the collection and the last to be
/// embedded again, so a collection is still detected as stale after an interruption.
pub(crate) const SAMPLE: usize = 256;

impl Shared {
    /// Records which collections have vectors of another model than the loaded one.
    pub(crate) fn find_stale(&self) {
        for collection in self.catalog().collections() {
            if let Err(error) = self.check_staleness(collection) {
                tracing::warn!(collection = collection.name, %error, "cannot determine yet which model computed the vectors");
            }
        }
    }

    /// Marks the collections of this model to be checked: another version of the model may have
    /// computed their vectors.
    pub(crate) fn model_loaded(&self, model: &str) {
        let catalog = self.catalog();
        let of_model =
            catalog.collections().filter(|collection| models(&collection.schema).any(|name| name == model));
        self.unchecked.lock().extend(of_model.map(|collection| collection.name.clone()));
    }

    /// Records whether a collection's vectors were computed by another model than the loaded one.
    /// After an error the collection stays marked as unchecked. A missing model is no error:
    /// [`Shared::model_loaded`] marks the collection once the model is loaded.
    pub(crate) fn check_staleness(&self, collection: &CollectionHandle) -> Result<(), Error> {
        // Removed first, so that a mark set by a concurrent model load is kept.
        self.unchecked.lock().remove(&collection.name);
        match self.is_stale(collection) {
            Ok(false) => Ok(()),
            Ok(true) => {
                if self.stale.lock().insert(collection.name.clone()) {
                    tracing::warn!(
                        collection = collection.name,
                        "the vectors were computed by another model; embedding the documents again"
                    );
                }
                Ok(())
            }
            // Readiness reports missing models.
            Err(error) if error.code == MODEL_MISSING => {
                tracing::debug!(collection = collection.name, %error, "cannot determine which model computed the vectors");
                Ok(())
            }
            Err(error) => {
                self.unchecked.lock().insert(collection.name.clone());
                Err(error)
            }
        }
    }

    /// The texts of a document whose vectors in this collection were computed by another model.
    /// Skips texts whose model is not installed.
    pub(crate) fn stale_texts(
        &self,
        collection: &CollectionHandle,
        document: &Document,
    ) -> Result<Vec<TextToEmbed>, Error> {
        let computed_by = self.backend.vector_models(collection, &document.key)?;
        let mut texts = self.backend.texts_to_embed(&document.key, &document.fields);
        texts.retain(|text| text.collection == collection.version);
        let mut stale = Vec::new();
        for text in texts {
            let fingerprint = match self.models.get(&text.model) {
                Err(error) if error.code == MODEL_MISSING => continue,
                model => model?.fingerprint().0,
            };
            let computed_by = computed_by.iter().find(|(field, _)| *field == text.field);
            if computed_by.is_some_and(|(_, model)| *model != fingerprint) {
                stale.push(text);
            }
        }
        Ok(stale)
    }

    /// The fingerprint of the installed model per computed field, sorted by field name.
    pub(crate) fn fingerprints(&self, collection: &CollectionHandle) -> Result<Fingerprints, Error> {
        let mut fingerprints = Vec::new();
        for (name, vector) in vector_fields(&collection.schema) {
            if let Some(embed) = &vector.embed {
                fingerprints.push((name.to_owned(), self.models.get(&embed.model)?.fingerprint().0));
            }
        }
        fingerprints.sort_unstable();
        Ok(fingerprints)
    }

    fn is_stale(&self, collection: &CollectionHandle) -> Result<bool, Error> {
        if let Some(recorded) = self.backend.models(&collection.name) {
            return Ok(recorded != self.fingerprints(collection)?);
        }
        for document in self.backend.scroll_blocking(&collection.name, None, SAMPLE)?.documents {
            if !self.stale_texts(collection, &document)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
