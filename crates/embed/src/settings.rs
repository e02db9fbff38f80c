//! Reading a model's configuration files.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::LoadError;
use crate::prompts::Prompts;

/// How token vectors are combined into one sentence vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The mean of all token vectors.
    Mean,
    /// The vector of the first token.
    Cls,
}

/// The dimensions of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ModelShape {
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
    pub(crate) token_types: usize,
    pub(crate) layer_norm_eps: f32,
}

/// The configuration of a model: everything except weights and vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) shape: ModelShape,
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    pub(crate) tokens_max: usize,
    pub(crate) lowercase: bool,
    pub(crate) prompts: Prompts,
    /// The directory of config.json, tokenizer.json and model.safetensors.
    pub(crate) transformer_dir: PathBuf,
}

/// Maximum size of a configuration file, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

impl Settings {
    /// Reads the configuration files of the model directory `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Settings, LoadError> {
        let modules = Modules::read(dir)?;
        let transformer_dir = dir.join(&modules.transformer);
        let shape = read_shape(&transformer_dir.join("config.json"))?;
        let prompts = Prompts::read(dir)?;
        let pooling = read_pooling(&dir.join(&modules.pooling).join("config.json"), shape.width, &prompts)?;
        let path = transformer_dir.join("sentence_bert_config.json");
        let sentence: SentenceConfig = read_json_if_present(&path)?.unwrap_or_default();
        let tokens_max = match sentence.max_seq_length {
            Some(0 | 1) => {
                return Err(invalid_setting(&path, "max_seq_length", "too small", "at least 2 is needed"));
            }
            // The number of positions limits the length, regardless of this setting.
            Some(length) => length.min(shape.positions),
            None => {
                let path = transformer_dir.join("tokenizer_config.json");
                let tokenizer: TokenizerConfig = read_json_if_present(&path)?.unwrap_or_default();
                // Some files use 1e30 for "no limit".
                let length = tokenizer.model_max_length.unwrap_or(f64::INFINITY);
                shape.positions.min(length.max(2.0) as usize)
            }
        };
        Ok(Settings {
            shape,
            pooling,
            normalize: modules.normalize,
            tokens_max,
            lowercase: sentence.do_lower_case,
            prompts,
            transformer_dir,
        })
    }
}

/// Content of modules.json: the modules of the model, in order.
struct Modules {
    transformer: PathBuf,
    pooling: PathBuf,
    normalize: bool,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

impl Modules {
    fn read(dir: &Path) -> Result<Modules, LoadError> {
        let path = dir.join("modules.json");
        let modules: Vec<Module> = read_json(&path)?;
        // Classes have moved between Python modules over the years, but their names have not changed.
        let classes: Vec<&str> =
            modules.iter().map(|module| module.class.rsplit('.').next().unwrap_or_default()).collect();
        let normalize = match classes[..] {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            _ => {
                let expected = "supported are Transformer, Pooling and optionally Normalize, in this order";
                return Err(invalid_setting(&path, "type", classes.join(", "), expected));
            }
        };
        for module in &modules {
            let plain = Path::new(&module.path).components().all(|c| matches!(c, Component::Normal(_)));
            if !plain {
                return Err(invalid_setting(
                    &path,
                    "path",
                    &module.path,
                    "it must be inside the model directory",
                ));
            }
        }
        Ok(Modules {
            transformer: PathBuf::from(&modules[0].path),
            pooling: PathBuf::from(&modules[1].path),
            normalize,
        })
    }
}

/// Content of config.json, as written by `transformers`.
#[derive(Deserialize)]
struct BertConfig {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_type_vocab_size")]
    type_vocab_size: usize,
    #[serde(default = "default_hidden_act")]
    hidden_act: String,
    #[serde(default = "default_layer_norm_eps")]
    layer_norm_eps: f64,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

fn default_type_vocab_size() -> usize {
    2
}

fn default_hidden_act() -> String {
    "gelu".into()
}

fn default_layer_norm_eps() -> f64 {
    1e-12
}

fn read_shape(path: &Path) -> Result<ModelShape, LoadError> {
    let config: BertConfig = read_json(path)?;
    let expect_value = |key, found: &str, supported: &str| {
        if found == supported {
            return Ok(());
        }
        Err(invalid_setting(path, key, format!("\"{found}\""), format!("only \"{supported}\" is supported")))
    };
    expect_value("model_type", &config.model_type, "bert")?;
    expect_value("hidden_act", &config.hidden_act, "gelu")?;
    if let Some(kind) = &config.position_embedding_type {
        expect_value("position_embedding_type", kind, "absolute")?;
    }
    if config.is_decoder {
        return Err(invalid_setting(path, "is_decoder", "true", "only encoders are supported"));
    }
    let expect_range = |key, found: usize, max: usize| {
        if (1..=max).contains(&found) {
            return Ok(());
        }
        Err(invalid_setting(path, key, found.to_string(), format!("expected 1 to {max}")))
    };
    expect_range("hidden_size", config.hidden_size, 4096)?;
    expect_range("num_hidden_layers", config.num_hidden_layers, 128)?;
    expect_range("num_attention_heads", config.num_attention_heads, config.hidden_size)?;
    expect_range("intermediate_size", config.intermediate_size, 65_536)?;
    expect_range("vocab_size", config.vocab_size, 4_000_000)?;
    expect_range("max_position_embeddings", config.max_position_embeddings, 65_536)?;
    expect_range("type_vocab_size", config.type_vocab_size, 1024)?;
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        let found = config.num_attention_heads.to_string();
        let expected = format!("it must divide hidden_size, which is {}", config.hidden_size);
        return Err(invalid_setting(path, "num_attention_heads", found, expected));
    }
    if !(0.0..1.0).contains(&config.layer_norm_eps) {
        return Err(invalid_setting(
            path,
            "layer_norm_eps",
            config.layer_norm_eps.to_string(),
            "expected 0 to 1",
        ));
    }
    if config.max_position_embeddings < 2 {
        return Err(invalid_setting(path, "max_position_embeddings", "1", "at least 2 is needed"));
    }
    Ok(ModelShape {
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        intermediate: config.intermediate_size,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        token_types: config.type_vocab_size,
        layer_norm_eps: config.layer_norm_eps as f32,
    })
}

fn read_pooling(path: &Path, width: usize, prompts: &Prompts) -> Result<Pooling, LoadError> {
    let config: serde_json::Map<String, serde_json::Value> = read_json(path)?;
    if config.get("include_prompt") == Some(&false.into()) && *prompts != Prompts::default() {
        let expected = "pooling that excludes prompts is not supported for a model with prompts";
        return Err(invalid_setting(path, "include_prompt", "false", expected));
    }
    if let Some(found) = config.get("word_embedding_dimension").or_else(|| config.get("embedding_dimension"))
        && found.as_u64() != Some(width as u64)
    {
        let expected = format!("expected {width}, the hidden_size in config.json");
        return Err(invalid_setting(path, "word_embedding_dimension", found.to_string(), expected));
    }
    // Older files have one boolean per mode. Newer files have the name of the mode.
    let mut modes: Vec<&str> = config
        .iter()
        .filter(|(_, value)| value.as_bool() == Some(true))
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
        .collect();
    if let Some(mode) = config.get("pooling_mode").and_then(serde_json::Value::as_str) {
        modes = vec![mode];
    }
    match modes[..] {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        _ => {
            let found = if modes.is_empty() { "not set".to_owned() } else { modes.join(", ") };
            Err(invalid_setting(path, "pooling_mode", found, "only mean or cls pooling is supported"))
        }
    }
}

#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
}

pub(crate) fn invalid_setting(
    path: &Path,
    key: &'static str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> LoadError {
    LoadError::Setting { path: path.into(), key, found: found.into(), expected: expected.into() }
}

/// Reads a file of at most `bytes_max` bytes.
pub(crate) fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
    let read = || {
        let file = File::open(path)?;
        let mut bytes = Vec::with_capacity(file.metadata()?.len().min(bytes_max) as usize);
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| LoadError::Read { path: path.into(), source })?;
    if bytes.len() as u64 > bytes_max {
        return Err(LoadError::TooLarge { path: path.into(), bytes_max });
    }
    Ok(bytes)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let bytes = read_file(path, CONFIG_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|source| LoadError::Json { path: path.into(), source })
}

pub(crate) fn read_json_if_present<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    match read_json(path) {
        Ok(value) => Ok(Some(value)),
        Err(LoadError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
