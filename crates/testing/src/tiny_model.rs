//! A generated sentence-transformers model of a few kilobytes: one BERT layer whose attention and
//! feed-forward outputs are zero, so the vector of a text is the mean of the vectors of its words.
//! Texts that share words are close; texts with the same bag of words have equal vectors.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// Vector dimensions.
pub const DIM: usize = 16;

/// Maximum input of the model in tokens, including its two special tokens.
pub const TOKENS_MAX: usize = 24;

const INTERMEDIATE: usize = 8;

/// Words that have a token; other words are split into letters.
pub const WORDS: [&str; 40] = [
    "apple", "pear", "plum", "cherry", "melon", "grape", "lemon", "fig", "invoice", "refund", "payment",
    "card", "tax", "price", "receipt", "bill", "login", "password", "account", "email", "reset", "token",
    "user", "profile", "server", "network", "cable", "router", "signal", "port", "cloud", "disk", "north",
    "south", "east", "west", "winter", "summer", "spring", "autumn",
];

/// Writes a model directory. A different `seed` creates a different model with a different fingerprint.
pub fn write(dir: &Path, seed: u64) {
    let vocabulary = vocabulary();
    fs::create_dir_all(dir.join("1_Pooling")).unwrap();
    let write = |name: &str, value: &Value| fs::write(dir.join(name), value.to_string()).unwrap();
    write("modules.json", &modules());
    write("sentence_bert_config.json", &json!({ "max_seq_length": TOKENS_MAX, "do_lower_case": false }));
    write(
        "1_Pooling/config.json",
        &json!({ "word_embedding_dimension": DIM, "pooling_mode_mean_tokens": true }),
    );
    write("config.json", &config(vocabulary.len()));
    write("tokenizer.json", &tokenizer(&vocabulary));
    fs::write(dir.join("model.safetensors"), weights(vocabulary.len(), seed)).unwrap();
}

fn vocabulary() -> Vec<String> {
    let mut vocabulary: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).to_vec();
    vocabulary.extend(WORDS.map(str::to_owned));
    for character in ('a'..='z').chain('0'..='9') {
        vocabulary.push(character.to_string());
        vocabulary.push(format!("##{character}"));
    }
    vocabulary
}

fn modules() -> Value {
    let module = |index: usize, path: &str, class: &str| json!({ "idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}") });
    json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize")
    ])
}

fn config(vocabulary: usize) -> Value {
    json!({
        "model_type": "bert",
        "hidden_size": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": vocabulary,
        "max_position_embeddings": TOKENS_MAX,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    })
}

fn tokenizer(vocabulary: &[String]) -> Value {
    let ids: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let special = |token: &str| {
        json!({
            "id": ids[token], "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let template = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let named = |token: &str| json!({ "id": token, "ids": [ids[token]], "tokens": [token] });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special("[PAD]"), special("[UNK]"), special("[CLS]"), special("[SEP]")],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [template("[CLS]"), sequence("A"), template("[SEP]")],
            "pair": [template("[CLS]"), sequence("A"), template("[SEP]"), sequence("B"), template("[SEP]")],
            "special_tokens": { "[CLS]": named("[CLS]"), "[SEP]": named("[SEP]") }
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids
        }
    })
}

/// A safetensors file: the header's length, the header, the values.
fn weights(vocabulary: usize, seed: u64) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut tensor = |name: &str, shape: &[usize], fill: &mut dyn FnMut() -> f32| {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            data.extend(fill().to_le_bytes());
        }
        header.insert(
            name.to_owned(),
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }),
        );
    };
    tensor("embeddings.word_embeddings.weight", &[vocabulary, DIM], &mut || random.next());
    tensor("embeddings.position_embeddings.weight", &[TOKENS_MAX, DIM], &mut || 0.0);
    tensor("embeddings.token_type_embeddings.weight", &[2, DIM], &mut || 0.0);
    let layer = "encoder.layer.0";
    let linear = |name: &str, out: usize, inputs: usize| (format!("{layer}.{name}"), out, inputs);
    let linears = [
        linear("attention.self.query", DIM, DIM),
        linear("attention.self.key", DIM, DIM),
        linear("attention.self.value", DIM, DIM),
        linear("attention.output.dense", DIM, DIM),
        linear("intermediate.dense", INTERMEDIATE, DIM),
        linear("output.dense", DIM, INTERMEDIATE),
    ];
    for (name, out, inputs) in linears {
        tensor(&format!("{name}.weight"), &[out, inputs], &mut || 0.0);
        tensor(&format!("{name}.bias"), &[out], &mut || 0.0);
    }
    let norms = [
        "embeddings.LayerNorm".to_owned(),
        format!("{layer}.attention.output.LayerNorm"),
        format!("{layer}.output.LayerNorm"),
    ];
    for name in norms {
        tensor(&format!("{name}.weight"), &[DIM], &mut || 1.0);
        tensor(&format!("{name}.bias"), &[DIM], &mut || 0.0);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

/// Xorshift64* (Marsaglia 2003, Vigna 2016).
struct Random(u64);

impl Random {
    /// Between -1 and 1.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        bits as f32 / (1 << 23) as f32 - 1.0
    }
}
