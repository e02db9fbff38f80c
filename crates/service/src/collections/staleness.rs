//! Vectors made by another model than the one that is installed now: a query's vector has nothing
//! to do with them.

use crate::{
    Document, Error,
    backend::{Fingerprints, TextToEmbed},
    catalog::{CollectionHandle, models, vector_fields},
    models::MODEL_MISSING,
    shared::Shared,
};

/// Documents looked at to tell. They are the first of a collection, and the last to get new
/// vectors: so whether a collection is stale can still be told after an interruption.
pub(crate) const SAMPLE: usize = 256;

impl Shared {
    /// Notes which collections' vectors are of another model than the one loaded.
    pub(crate) fn find_stale(&self) {
        for known in self.catalog().collections() {
            if let Err(error) = self.note_if_stale(known) {
                tracing::warn!(collection = known.name, %error, "cannot tell yet whose its vectors are");
            }
        }
    }

    /// Has the vectors of this model's collections compared with it: it may be another than made them.
    pub(crate) fn model_loaded(&self, model: &str) {
        let catalog = self.catalog();
        let of_model = catalog.collections().filter(|known| models(&known.schema).any(|name| name == model));
        self.unchecked.lock().extend(of_model.map(|known| known.name.clone()));
    }

    /// Notes whether a collection's vectors are of another model than the one loaded. After an error that is not known
    /// and has to be asked again; about a model that is missing it is, when that is loaded.
    pub(crate) fn note_if_stale(&self, known: &CollectionHandle) -> Result<(), Error> {
        // First, so that a model that is loaded meanwhile is not overlooked.
        self.unchecked.lock().remove(&known.name);
        match self.is_stale(known) {
            Ok(false) => Ok(()),
            Ok(true) => {
                if self.stale.lock().insert(known.name.clone()) {
                    tracing::warn!(
                        collection = known.name,
                        "its vectors were made by another model and are made again"
                    );
                }
                Ok(())
            }
            // Readiness tells of it.
            Err(error) if error.code == MODEL_MISSING => {
                tracing::debug!(collection = known.name, %error, "cannot tell whose its vectors are");
                Ok(())
            }
            Err(error) => {
                self.unchecked.lock().insert(known.name.clone());
                Err(error)
            }
        }
    }

    /// The texts of a document whose vectors in this collection are of another model, as far as
    /// their models are there.
    pub(crate) fn stale_texts(
        &self,
        known: &CollectionHandle,
        document: &Document,
    ) -> Result<Vec<TextToEmbed>, Error> {
        let made = self.backend.made_by(known, &document.key)?;
        let mut texts = self.backend.texts_to_embed(&document.key, &document.fields);
        texts.retain(|text| text.collection == known.version);
        let mut stale = Vec::new();
        for text in texts {
            let fingerprint = match self.models.get(&text.model) {
                Err(error) if error.code == MODEL_MISSING => continue,
                model => model?.fingerprint().0,
            };
            let made = made.iter().find(|(field, _)| *field == text.field);
            if made.is_some_and(|(_, model)| *model != fingerprint) {
                stale.push(text);
            }
        }
        Ok(stale)
    }

    /// The models a collection's texts are embedded by now, by the names of the fields.
    pub(crate) fn fingerprints(&self, known: &CollectionHandle) -> Result<Fingerprints, Error> {
        let mut fingerprints = Vec::new();
        for (name, vector) in vector_fields(&known.schema) {
            if let Some(embed) = &vector.embed {
                fingerprints.push((name.to_owned(), self.models.get(&embed.model)?.fingerprint().0));
            }
        }
        fingerprints.sort_unstable();
        Ok(fingerprints)
    }

    fn is_stale(&self, known: &CollectionHandle) -> Result<bool, Error> {
        if let Some(noted) = self.backend.models(&known.name) {
            return Ok(noted != self.fingerprints(known)?);
        }
        for document in self.backend.scroll_blocking(&known.name, None, SAMPLE)?.documents {
            if !self.stale_texts(known, &document)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
