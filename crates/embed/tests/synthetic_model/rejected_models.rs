//! Invalid model directories are rejected with a message that names the file and the problem.

use std::fs;
use std::path::Path;

use crate::synthetic::{SyntheticModel, Tensor, WIDTH, weights_path};
use embed::{ComputeType, Model};
use kernels::simd::Cpu;
use serde_json::{Value, json};

#[track_caller]
fn assert_rejected(dir: &Path, expected: &[&str]) {
    let error = Model::load(dir, Cpu::detect(), &[ComputeType::F32]).expect_err("the model is invalid");
    // Users see the message with the chain of causes.
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn rejects_unsupported_settings() {
    let base = || SyntheticModel::new(1);
    let pooling = "1_Pooling/config.json";
    for (model, expected) in [
        (
            base().with("config.json", "model_type", json!("mpnet")),
            ["config.json", "model_type", "\"mpnet\""],
        ),
        (base().with("config.json", "hidden_act", json!("relu")), ["config.json", "hidden_act", "\"relu\""]),
        (
            base().with("config.json", "position_embedding_type", json!("relative_key")),
            ["config.json", "position_embedding_type", "relative_key"],
        ),
        (
            base().with("config.json", "num_attention_heads", json!(5)),
            ["config.json", "heads is 5", "divide"],
        ),
        (base().with("config.json", "hidden_size", json!(0)), ["config.json", "hidden_size is 0", "1 to"]),
        (base().with("config.json", "num_hidden_layers", json!(1_000_000)), ["config.json", "layers", "128"]),
        (base().with("config.json", "vocab_size", json!("x")), ["config.json", "line 1", "usize"]),
        (base().with("config.json", "is_decoder", json!(true)), ["config.json", "is_decoder", "encoders"]),
        (base().with("config.json", "layer_norm_eps", json!(-1)), ["config.json", "layer_norm_eps", "-1"]),
        (
            base().with(pooling, "pooling_mode_mean_tokens", json!(false)),
            ["1_Pooling", "pooling_mode", "not set"],
        ),
        (
            base().with(pooling, "pooling_mode_max_tokens", json!(true)),
            ["1_Pooling", "max_tokens", "mean or cls"],
        ),
        (base().with(pooling, "pooling_mode", json!("lasttoken")), ["1_Pooling", "lasttoken", "mean or cls"]),
        (base().with(pooling, "word_embedding_dimension", json!(7)), ["1_Pooling", "is 7", "24"]),
        (
            base().with("sentence_bert_config.json", "max_seq_length", json!(1)),
            ["sentence_bert_config.json", "max_seq_length", "at least 2"],
        ),
        (
            base().with("sentence_bert_config.json", "max_seq_length", json!(2)),
            ["tokenizer.json", "2 special tokens", "no space"],
        ),
        (
            base().with("tokenizer.json", "model", json!({"type": "Nonsense"})),
            ["tokenizer.json", "not a valid", ""],
        ),
    ] {
        assert_rejected(model.write().path(), &expected);
    }
}

#[test]
fn rejects_unsupported_modules() {
    let module = |class: &str, path: &str| json!({"idx": 0, "name": "0", "path": path, "type": class});
    for (modules, expected) in [
        (json!([module("a.Transformer", "")]), ["modules.json", "Transformer", "Pooling"]),
        (
            json!([
                module("a.Transformer", ""),
                module("a.Pooling", "1_Pooling"),
                module("a.Dense", "2_Dense")
            ]),
            ["modules.json", "Dense", "Normalize"],
        ),
        (
            json!([module("a.Transformer", "../x"), module("a.Pooling", "p")]),
            ["modules.json", "path", "inside"],
        ),
        (
            json!([module("a.Transformer", "/etc"), module("a.Pooling", "p")]),
            ["modules.json", "path", "inside"],
        ),
        (json!({"not": "a list"}), ["modules.json", "line 1", "sequence"]),
    ] {
        let mut model = SyntheticModel::new(1);
        model.files.insert("modules.json", modules);
        assert_rejected(model.write().path(), &expected);
    }
}

#[test]
fn rejects_invalid_prompts() {
    let file = "config_sentence_transformers.json";
    let mut model = SyntheticModel::new(1);
    model.files.insert(file, json!({"prompts": {"query": "q: "}, "default_prompt_name": "passage"}));
    assert_rejected(model.write().path(), &[file, "default_prompt_name", "passage"]);
    model.files.insert(file, json!({"prompts": {"query": "q".repeat(1025)}}));
    assert_rejected(model.write().path(), &[file, "1025 bytes", "at most 1024"]);
    model.files.insert(file, json!({"prompts": {"query": "q: "}}));
    let model = model.with("1_Pooling/config.json", "include_prompt", json!(false));
    assert_rejected(model.write().path(), &["1_Pooling", "include_prompt", "prompts"]);
}

#[test]
fn rejects_missing_files() {
    for file in
        ["modules.json", "config.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"]
    {
        let dir = SyntheticModel::new(1).write();
        fs::remove_file(dir.path().join(file)).expect("the file was there");
        assert_rejected(dir.path(), &["cannot read", file]);
    }
}

#[test]
fn rejects_oversized_configuration_files() {
    let dir = SyntheticModel::new(1).write();
    fs::write(dir.path().join("config.json"), vec![b' '; (1 << 20) + 1]).expect("written");
    assert_rejected(dir.path(), &["config.json", "more than 1048576 bytes"]);
}

#[test]
fn rejects_token_ids_without_an_embedding() {
    let mut model = SyntheticModel::new(1);
    model.files.get_mut("tokenizer.json").expect("the tokenizer")["model"]["vocab"]["extra"] = json!(12);
    assert_rejected(model.write().path(), &["tokenizer.json", "token id 12", "12 ids"]);
}

#[test]
fn rejects_vocabularies_without_an_unknown_token() {
    let mut model = SyntheticModel::new(1);
    let tokenizer = model.files.get_mut("tokenizer.json").expect("the tokenizer");
    tokenizer["model"]["vocab"].as_object_mut().expect("a map").remove("[UNK]");
    tokenizer["added_tokens"].as_array_mut().expect("a list").retain(|token| token["content"] != "[UNK]");
    assert_rejected(model.write().path(), &["tokenizer.json", "[UNK]"]);
}

#[test]
fn rejects_missing_tensors_and_wrong_shapes() {
    let full = SyntheticModel::new(1);
    for name in full.tensors.keys() {
        let mut model = full.clone();
        model.tensors.remove(name);
        assert_rejected(model.write().path(), &["model.safetensors", "no tensor", name]);
    }
    let name = "encoder.layer.1.output.dense.weight";
    let mut model = full.clone();
    model.tensors.insert(name.into(), Tensor { shape: vec![2, 3], values: vec![0.0; 6] });
    assert_rejected(model.write().path(), &["model.safetensors", name, "[2, 3]", "[24, 40]"]);
    // The right size but transposed, as in Conv1D checkpoints.
    let mut model = full.clone();
    model.tensors.get_mut(name).expect("the tensor").shape.reverse();
    assert_rejected(model.write().path(), &["model.safetensors", name, "[40, 24]", "[24, 40]"]);
}

#[test]
fn rejects_weights_that_are_not_finite() {
    let name = "encoder.layer.0.attention.self.key.bias";
    for (value, text) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut model = SyntheticModel::new(1);
        model.tensors.get_mut(name).expect("the tensor").values[WIDTH - 1] = value;
        assert_rejected(model.write().path(), &["model.safetensors", name, text, "finite"]);
    }
}

#[test]
fn rejects_unsupported_element_types() {
    let mut model = SyntheticModel::new(1);
    model.tensors.clear();
    let dir = model.write();
    let table = json!({"embeddings.word_embeddings.weight":
        {"dtype": "I8", "shape": [12, WIDTH], "data_offsets": [0, 12 * WIDTH]}});
    fs::write(weights_path(dir.path()), with_header(&table.to_string(), 12 * WIDTH)).expect("written");
    assert_rejected(dir.path(), &["model.safetensors", "word_embeddings", "I8", "BF16"]);
}

fn with_header(header: &str, data_len: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_len, 0);
    file
}

#[test]
fn rejects_malformed_weights_files() {
    let dir = SyntheticModel::new(1).write();
    let whole = fs::read(weights_path(dir.path())).expect("the weights");
    let entry = |shape: Value, end: u64| {
        json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).to_string()
    };
    let mut files: Vec<Vec<u8>> =
        [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1].map(|len| whole[..len].to_vec()).into();
    files.push([&u64::MAX.to_le_bytes()[..], &whole[8..]].concat());
    files.push([&(1u64 << 40).to_le_bytes()[..], &whole[8..]].concat());
    files.push([&whole[..], &[0]].concat());
    files.push(with_header("{", 0));
    files.push(with_header("[]", 0));
    files.push(with_header(&entry(json!([u64::MAX, u64::MAX]), 4), 4));
    files.push(with_header(&entry(json!([1]), u64::MAX), 4));
    files.push(with_header(&entry(json!([2]), 4), 4));
    for file in files {
        fs::write(weights_path(dir.path()), &file).expect("written");
        assert_rejected(dir.path(), &["model.safetensors", "not a valid safetensors file"]);
    }
}
