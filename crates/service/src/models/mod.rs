//! The embedding models, by name.

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
    meter::{Meter, TextKind},
    sync::{Arc, Mutex, OnceLock, RwLock},
};
use query_cache::{QueryCache, QueryKey};

/// Error code: the model is not installed.
pub(crate) const MODEL_MISSING: &str = "model-missing";

/// Maximum queries per batch. Larger batches add latency without a higher throughput.
const BATCH_MAX: usize = 16;

/// The vector of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextVector {
    pub(crate) values: Vec<f32>,
    /// Fingerprint of the model that computed it.
    pub(crate) model: [u8; 16],
    /// Whether the text exceeded the model's maximum length.
    pub(crate) truncated: bool,
}

impl TextVector {
    /// The vector in the form in which the engine stores it for `text`.
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

/// Callback that receives the name of a model that was loaded.
type OnLoad = Box<dyn Fn(&str) + Send + Sync>;

/// The models. A model is loaded on first use and stays loaded.
pub(crate) struct Models {
    dir: PathBuf,
    cpu: Cpu,
    query_compute: ComputeType,
    document_compute: ComputeType,
    meter: Arc<Meter>,
    queries: QueryCache,
    caches_queries: bool,
    loaded: RwLock<HashMap<String, Arc<Model>>>,
    /// Held during a load, so that no two threads load the same model.
    loading: Mutex<()>,
    on_load: OnceLock<OnLoad>,
}

impl Models {
    pub(crate) fn new(config: &Config, cpu: Cpu, meter: Arc<Meter>) -> Models {
        Models {
            dir: config.models_dir.clone(),
            cpu,
            query_compute: config.query_compute.unwrap_or_else(|| ComputeType::for_queries(cpu)),
            document_compute: config.document_compute.unwrap_or_else(|| ComputeType::for_documents(cpu)),
            meter,
            queries: QueryCache::new(config.query_cache_bytes),
            caches_queries: config.query_cache_bytes > 0,
            loaded: RwLock::default(),
            loading: Mutex::new(()),
            on_load: OnceLock::new(),
        }
    }

    /// Whether the query cache is enabled.
    pub(crate) fn caches_queries(&self) -> bool {
        self.caches_queries
    }

    /// Registers the callback for loaded models. May be called once only.
    pub(crate) fn on_load(&self, loaded: impl Fn(&str) + Send + Sync + 'static) {
        let first = self.on_load.set(Box::new(loaded)).is_ok();
        assert!(first, "the load callback is already registered");
    }

    /// The model, if it is loaded.
    pub(crate) fn loaded(&self, name: &str) -> Option<Arc<Model>> {
        self.loaded.read().get(name).cloned()
    }

    /// The model, loaded from its directory if needed. Blocks during the load, so only worker threads
    /// may call it.
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

    /// Checks that the model is loaded or installed, without loading it.
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        match self.loaded(name) {
            Some(_) => Ok(()),
            None => self.dir_of(name).map(drop),
        }
    }

    /// The vectors of queries, in order: from the query cache, or computed as one batch.
    pub(crate) fn embed_queries(&self, model: &Model, texts: &[&str]) -> Vec<Arc<TextVector>> {
        let fingerprint = model.fingerprint().0;
        let key = |text: &&str| {
            let Tokens { ids, truncated } = model.tokenize_query(text);
            QueryKey { model: fingerprint, tokens: ids, truncated }
        };
        let keys: Vec<QueryKey> = texts.iter().map(key).collect();
        let compute = |missing: &[&QueryKey]| {
            let tokens = |key: &&QueryKey| Tokens { ids: key.tokens.clone(), truncated: key.truncated };
            self.embed(model, &missing.iter().map(tokens).collect::<Vec<_>>(), TextKind::Query)
        };
        let embedded = self.queries.get_or_compute(&keys, compute).into_iter();
        let embedded = embedded.map(|(embedded, is_hit)| {
            self.meter.query_cache_lookup(is_hit, self.queries.bytes());
            embedded
        });
        embedded.collect()
    }

    /// Maximum queries to embed as one batch. Int8 arithmetic gains nothing from batches; the other
    /// compute types read larger weights, which a batch reads only once.
    pub(crate) fn batch_max(&self) -> usize {
        match self.query_compute {
            ComputeType::Int8 => 1,
            ComputeType::Bf16 | ComputeType::F32 => BATCH_MAX,
        }
    }

    /// The vectors of documents' texts, in order. The first call prepares the weights for documents,
    /// so that a process that only searches does not hold them in memory.
    pub(crate) fn embed_documents(&self, model: &Model, texts: &[&str]) -> Result<Vec<TextVector>, Error> {
        if !model.is_prepared(self.document_compute) {
            let _loading = self.loading.lock();
            model.prepare(self.document_compute).map_err(|error| unreadable(model.name(), &error))?;
        }
        let batch: Vec<Tokens> = texts.iter().map(|text| model.tokenize(text)).collect();
        Ok(self.embed(model, &batch, TextKind::Document))
    }

    fn embed(&self, model: &Model, batch: &[Tokens], kind: TextKind) -> Vec<TextVector> {
        let compute = match kind {
            TextKind::Query => self.query_compute,
            TextKind::Document => self.document_compute,
        };
        let values = model.embed(batch, compute);
        self.meter.embedded(kind, batch.len(), batch.iter().map(|tokens| tokens.ids.len()).sum());
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

/// Checks that `name` is a valid model name: a single path component other than `.` and `..`.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if plain && (1..=128).contains(&name.len()) && name.bytes().any(|byte| byte != b'.') {
        return Ok(());
    }
    Err(Error::invalid(
        "model-name",
        format!("invalid model name {name:?}: use 1 to 128 letters, digits, '_', '.' and '-', not only dots"),
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
    fn accepts_only_plain_path_components_as_model_names() {
        for name in ["all-MiniLM-L6-v2", "a", "e5.small_v2", ".hidden"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
        let long = "x".repeat(129);
        for name in ["", ".", "..", "a/b", "..\\x", "ü", "a b", "a\0", &long] {
            assert_eq!(check_name(name).unwrap_err().code, "model-name", "{name:?}");
        }
    }
}
