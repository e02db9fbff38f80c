//! Vectors made by another model than the one that is installed now: a query's vector has nothing
//! to do with them.

use super::{
    Document, Error,
    backend::{Fingerprints, TextToEmbed},
    catalog::{Known, vector_fields},
    shared::Shared,
};

/// Documents looked at to tell. They are the first of a collection, and the last to get new
/// vectors: so whether a collection is stale can still be told after an interruption.
pub(super) const SAMPLE: usize = 256;

impl Shared {
    /// Notes which collections' vectors are of another model than the one loaded.
    pub(super) fn find_stale(&self) {
        for known in self.catalog().collections() {
            self.note_if_stale(known);
        }
    }

    /// Notes whether a collection's vectors are of another model than the one loaded.
    pub(super) fn note_if_stale(&self, known: &Known) {
        match self.is_stale(known) {
            Ok(false) => {}
            Ok(true) => {
                if self.stale.lock().insert(known.name.clone()) {
                    tracing::warn!(
                        collection = known.name,
                        "its vectors were made by another model and are made again"
                    );
                }
            }
            // Readiness tells that the model is missing.
            Err(error) => {
                tracing::debug!(collection = known.name, %error, "cannot tell whose its vectors are");
            }
        }
    }

    /// The texts of a document whose vectors in this collection are of another model.
    pub(super) fn stale_texts(&self, known: &Known, document: &Document) -> Result<Vec<TextToEmbed>, Error> {
        let made = self.backend.made_by(known, &document.key)?;
        let mut texts = self.backend.texts_to_embed(&document.key, &document.fields);
        texts.retain(|text| text.collection == known.version);
        let mut stale = Vec::new();
        for text in texts {
            let fingerprint = self.models.get(&text.model)?.fingerprint().0;
            let made = made.iter().find(|(field, _)| *field == text.field);
            if made.is_some_and(|(_, model)| *model != fingerprint) {
                stale.push(text);
            }
        }
        Ok(stale)
    }

    /// The models a collection's texts are embedded by now, by the names of the fields.
    pub(super) fn fingerprints(&self, known: &Known) -> Result<Fingerprints, Error> {
        let mut fingerprints = Vec::new();
        for (name, vector) in vector_fields(&known.schema) {
            if let Some(embed) = &vector.embed {
                fingerprints.push((name.to_owned(), self.models.get(&embed.model)?.fingerprint().0));
            }
        }
        fingerprints.sort_unstable();
        Ok(fingerprints)
    }

    fn is_stale(&self, known: &Known) -> Result<bool, Error> {
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
