//! A BERT model with a few thousand random weights, written in the format of sentence-transformers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const WIDTH: usize = 24;
pub(crate) const HEADS: usize = 3;
pub(crate) const LAYERS: usize = 2;
pub(crate) const INTERMEDIATE: usize = 40;
pub(crate) const POSITIONS: usize = 16;
pub(crate) const TOKENS_MAX: usize = 12;
pub(crate) const EPS: f64 = 1e-6;
/// A token's id is its index in this list.
pub(crate) const VOCABULARY: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "stone", "##s", "green", "sea", "##side", "?"];

/// A tensor's shape and values.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// The content of a model directory. Tests modify it and then call [`SyntheticModel::write`].
#[derive(Clone)]
pub(crate) struct SyntheticModel {
    /// Configuration files by path.
    pub(crate) files: BTreeMap<&'static str, Value>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Prefix of each tensor's name in the file.
    pub(crate) prefix: &'static str,
    /// F32, F16 or BF16.
    pub(crate) dtype: &'static str,
}

impl SyntheticModel {
    /// A model with mean pooling, normalization, and random weights that depend only on `seed`.
    pub(crate) fn new(seed: u64) -> SyntheticModel {
        let files = [
            (
                "modules.json",
                json!([
                    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
                ]),
            ),
            (
                "1_Pooling/config.json",
                json!({"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": true}),
            ),
            ("sentence_bert_config.json", json!({"max_seq_length": TOKENS_MAX, "do_lower_case": false})),
            (
                "config.json",
                json!({
                    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
                    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
                    "intermediate_size": INTERMEDIATE, "vocab_size": VOCABULARY.len(),
                    "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": EPS,
                }),
            ),
            ("tokenizer.json", tokenizer()),
        ];
        SyntheticModel { files: files.into(), tensors: tensors(seed), prefix: "", dtype: "F32" }
    }

    /// Sets `key` of the configuration file `file`.
    pub(crate) fn with(mut self, file: &str, key: &str, value: Value) -> SyntheticModel {
        self.files.get_mut(file).expect("a file of the model")[key] = value;
        self
    }

    /// Removes the normalization module.
    pub(crate) fn without_normalize(mut self) -> SyntheticModel {
        self.files.get_mut("modules.json").and_then(Value::as_array_mut).expect("a list").pop();
        self
    }

    /// Uses the vector of the first token instead of the mean.
    pub(crate) fn with_cls_pooling(self) -> SyntheticModel {
        self.with("1_Pooling/config.json", "pooling_mode_mean_tokens", json!(false)).with(
            "1_Pooling/config.json",
            "pooling_mode_cls_token",
            json!(true),
        )
    }

    /// Writes all files to a new temporary directory.
    pub(crate) fn write(&self) -> TempDir {
        let dir = TempDir::with_prefix("synthetic-").expect("a temporary directory");
        fs::create_dir(dir.path().join("1_Pooling")).expect("a directory for the pooling module");
        for (file, value) in &self.files {
            fs::write(dir.path().join(file), value.to_string()).expect("a configuration file");
        }
        fs::write(weights_path(dir.path()), self.safetensors()).expect("the weights file");
        dir
    }

    /// The weights as a safetensors file: length of the header, header, data.
    pub(crate) fn safetensors(&self) -> Vec<u8> {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, tensor) in &self.tensors {
            let start = data.len();
            for &value in &tensor.values {
                match self.dtype {
                    "F32" => data.extend(value.to_le_bytes()),
                    "F16" => data.extend(f16::from_f32(value).to_le_bytes()),
                    "BF16" => data.extend(bf16::from_f32(value).to_le_bytes()),
                    other => panic!("no element type {other}"),
                }
            }
            let entry =
                json!({"dtype": self.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
            header.insert(format!("{}{name}", self.prefix), entry);
        }
        let header = Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }
}

pub(crate) fn weights_path(dir: &Path) -> PathBuf {
    dir.join("model.safetensors")
}

fn tensors(seed: u64) -> BTreeMap<String, Tensor> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize], mean: f32| {
        // F16 and BF16 represent these values exactly, so that the expected vectors are the same for all types.
        let value = |random: f32| (random * 64.0).round() / 128.0 + mean;
        let values = (0..shape.iter().product()).map(|_| value(random())).collect();
        tensors.insert(name, Tensor { shape: shape.to_vec(), values });
    };
    add("embeddings.word_embeddings.weight".into(), &[VOCABULARY.len(), WIDTH], 0.0);
    add("embeddings.position_embeddings.weight".into(), &[POSITIONS, WIDTH], 0.0);
    add("embeddings.token_type_embeddings.weight".into(), &[2, WIDTH], 0.0);
    add("embeddings.LayerNorm.weight".into(), &[WIDTH], 1.0);
    add("embeddings.LayerNorm.bias".into(), &[WIDTH], 0.0);
    for layer in 0..LAYERS {
        for (part, inputs, outputs) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", WIDTH, INTERMEDIATE),
            ("output.dense", INTERMEDIATE, WIDTH),
        ] {
            add(format!("encoder.layer.{layer}.{part}.weight"), &[outputs, inputs], 0.0);
            add(format!("encoder.layer.{layer}.{part}.bias"), &[outputs], 0.0);
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(format!("encoder.layer.{layer}.{part}.weight"), &[WIDTH], 1.0);
            add(format!("encoder.layer.{layer}.{part}.bias"), &[WIDTH], 0.0);
        }
    }
    tensors
}

/// A WordPiece tokenizer whose file, like many real ones, truncates and pads to other lengths than the model's.
fn tokenizer() -> Value {
    let vocab: BTreeMap<&str, usize> = VOCABULARY.iter().enumerate().map(|(i, &word)| (word, i)).collect();
    let special = |id: usize| {
        json!({
            "id": id, "content": VOCABULARY[id], "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {
            "strategy": {"Fixed": 5}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    })
}
