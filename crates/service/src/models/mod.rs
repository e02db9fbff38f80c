//! The models texts are embedded with, by name.

pub(crate) mod batches;
mod query_cache;
mod query_jobs;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use embed::{ComputeType, LoadError, Model, Tokens};
use engine::{ComputedVector, Cpu, TextToEmbed};

pub(crate) use query_jobs::QueryJob;

use crate::{
    Config, Error,
    meter::{Meter, TextOf},
    sync::{Arc, Mutex, OnceLock, RwLock},
};
use query_cache::{QueryCache, QueryKey};

/// A model is not there.
pub(crate) const MODEL_MISSING: &str = "model-missing";

/// Queries embedded together at most: more gain nothing, and each waits for the last.
const BATCH_MAX: usize = 16;

/// A text's vector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextVector {
    pub(crate) values: Vec<f32>,
    /// Fingerprint of the model that made it.
    pub(crate) model: [u8; 16],
    /// Whether the text was longer than the model reads.
    pub(crate) truncated: bool,
}

impl TextVector {
    /// The computed vector of a document's text.
    pub(crate) fn vector_of(&self, text: &TextToEmbed) -> ComputedVector {
        ComputedVector {
            collection: text.collection,
            field: text.field,
            passage: text.passage,
            model: self.model,
            values: self.values.clone(),
        }
    }
}

/// Who is told that the model of this name was loaded.
type OnLoad = Box<dyn Fn(&str) + Send + Sync>;

/// Loaded models. One is loaded when it is first asked for, and stays.
pub(crate) struct Models {
    dir: PathBuf,
    cpu: Cpu,
    query_compute: ComputeType,
    document_compute: ComputeType,
    meter: Arc<Meter>,
    queries: QueryCache,
    remembers_queries: bool,
    loaded: RwLock<HashMap<String, Arc<Model>>>,
    /// Held while a model is read, so that no two threads read the same one.
    loading: Mutex<()>,
    on_load: OnceLock<OnLoad>,
}

impl Models {
    /// Whether vectors of queries are kept for those who ask the same.
    pub(crate) fn remembers_queries(&self) -> bool {
        self.remembers_queries
    }

    pub(crate) fn new(config: &Config, cpu: Cpu, meter: Arc<Meter>) -> Models {
        Models {
            dir: config.models_dir.clone(),
            cpu,
            query_compute: config.query_compute.unwrap_or_else(|| ComputeType::for_queries(cpu)),
            document_compute: config.document_compute.unwrap_or_else(|| ComputeType::for_documents(cpu)),
            meter,
            queries: QueryCache::new(config.query_cache_bytes),
            remembers_queries: config.query_cache_bytes > 0,
            loaded: RwLock::default(),
            loading: Mutex::new(()),
            on_load: OnceLock::new(),
        }
    }

    /// Calls `loaded` whenever a model has been loaded. For once.
    pub(crate) fn on_load(&self, loaded: impl Fn(&str) + Send + Sync + 'static) {
        let first = self.on_load.set(Box::new(loaded)).is_ok();
        assert!(first, "one service listens to its models");
    }

    /// The model, if it has been loaded.
    pub(crate) fn loaded(&self, name: &str) -> Option<Arc<Model>> {
        self.loaded.read().get(name).cloned()
    }

    /// The model, read from its directory if it has not been yet. Takes a moment: for workers.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Model>, Error> {
        if let Some(model) = self.loaded(name) {
            return Ok(model);
        }
        let loading = self.loading.lock();
        if let Some(model) = self.loaded(name) {
            return Ok(model);
        }
        let dir = self.dir_of(name)?;
        let (first, later) = (&[self.query_compute], &[self.document_compute]);
        let model = Model::load_with_deferred(&dir, self.cpu, first, later);
        let model = Arc::new(model.map_err(|error| unreadable(name, &error))?);
        self.loaded.write().insert(name.to_owned(), model.clone());
        drop(loading);
        if let Some(on_load) = self.on_load.get() {
            on_load(name);
        }
        Ok(model)
    }

    /// Whether the model could be loaded, without loading it.
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        match self.loaded(name) {
            Some(_) => Ok(()),
            None => self.dir_of(name).map(drop),
        }
    }

    /// Queries embedded together, or found among those embedded before, in their order.
    pub(crate) fn embed_queries(&self, model: &Model, texts: &[&str]) -> Vec<Arc<TextVector>> {
        let fingerprint = model.fingerprint().0;
        let asked = |text: &&str| {
            let Tokens { ids, truncated } = model.tokenize_query(text);
            QueryKey { model: fingerprint, tokens: ids, truncated }
        };
        let asked: Vec<QueryKey> = texts.iter().map(asked).collect();
        let compute = |unknown: &[&QueryKey]| {
            let tokens = |asked: &&QueryKey| Tokens { ids: asked.tokens.clone(), truncated: asked.truncated };
            self.embed(model, &unknown.iter().map(tokens).collect::<Vec<_>>(), TextOf::Query)
        };
        let embedded = self.queries.get_or_compute(&asked, compute).into_iter();
        let embedded = embedded.map(|(embedded, found)| {
            self.meter.looked_up(found, self.queries.bytes());
            embedded
        });
        embedded.collect()
    }

    /// Queries that are best embedded together: integer arithmetic is as fast for one as for many, the
    /// others pass over larger weights and share that among up to this many.
    pub(crate) fn batch_max(&self) -> usize {
        match self.query_compute {
            ComputeType::Int8 => 1,
            ComputeType::Bf16 | ComputeType::F32 => BATCH_MAX,
        }
    }

    /// Embeds texts of documents, in their order. The first take a moment longer: who only searches
    /// needs no memory for what documents are computed in.
    pub(crate) fn embed_documents(&self, model: &Model, texts: &[&str]) -> Result<Vec<TextVector>, Error> {
        if !model.is_prepared(self.document_compute) {
            let _loading = self.loading.lock();
            model.prepare(self.document_compute).map_err(|error| unreadable(model.name(), &error))?;
        }
        let batch: Vec<Tokens> = texts.iter().map(|text| model.tokenize(text)).collect();
        Ok(self.embed(model, &batch, TextOf::Document))
    }

    fn embed(&self, model: &Model, batch: &[Tokens], of: TextOf) -> Vec<TextVector> {
        let compute = match of {
            TextOf::Query => self.query_compute,
            TextOf::Document => self.document_compute,
        };
        let values = model.embed(batch, compute);
        self.meter.embedded(of, batch.len(), batch.iter().map(|tokens| tokens.ids.len()).sum());
        let fingerprint = model.fingerprint().0;
        batch
            .iter()
            .zip(values.chunks_exact(model.dim()))
            .map(|(tokens, values)| TextVector {
                values: values.to_vec(),
                model: fingerprint,
                truncated: tokens.truncated,
            })
            .collect()
    }

    fn dir_of(&self, name: &str) -> Result<PathBuf, Error> {
        check_name(name)?;
        let dir = self.dir.join(name);
        if dir.is_dir() { Ok(dir) } else { Err(missing(name, &dir)) }
    }
}

/// Whether `name` can be a model's: one path component that leads nowhere else.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if plain && (1..=128).contains(&name.len()) && name.bytes().any(|byte| byte != b'.') {
        return Ok(());
    }
    Err(Error::invalid(
        "model-name",
        format!(
            "{name:?} is no name of a model: 1 to 128 letters, digits, '_', '.' and '-' are allowed, not all dots"
        ),
    ))
}

fn unreadable(name: &str, error: &LoadError) -> Error {
    Error::unavailable("model-unreadable", format!("model {name:?} cannot be loaded: {error}")).at(name)
}

fn missing(name: &str, dir: &Path) -> Error {
    Error::unavailable(
        MODEL_MISSING,
        format!(
            "model {name:?} is not installed: there is no directory {}; run `nearfield model pull`",
            dir.display()
        ),
    )
    .at(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_path_component() {
        for name in ["all-MiniLM-L6-v2", "a", "e5.small_v2", ".hidden"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
        let long = "x".repeat(129);
        for name in ["", ".", "..", "a/b", "..\\x", "ü", "a b", "a\0", &long] {
            assert_eq!(check_name(name).unwrap_err().code, "model-name", "{name:?}");
        }
    }
}
