//! Compares small random BERT models with a naive double-precision forward pass.

use crate::synthetic::{EPS, HEADS, LAYERS, SyntheticModel, TOKENS_MAX, VOCABULARY, WIDTH, weights_path};
use embed::{ComputeType, LoadError, Model, Tokens};
use kernels::simd::Cpu;
use serde_json::{Value, json};

const SEED: u64 = 20_240_229;

/// The forward pass as defined in the papers, one token and one value at a time.
struct NaiveEncoder<'a>(&'a SyntheticModel);

type Rows = Vec<Vec<f64>>;

impl NaiveEncoder<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        self.0.tensors[name].values.iter().map(|&value| f64::from(value)).collect()
    }

    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let (weights, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let output = |row: &Vec<f64>, o: usize| {
            bias[o] + row.iter().enumerate().map(|(i, x)| x * weights[o * row.len() + i]).sum::<f64>()
        };
        rows.iter().map(|row| (0..bias.len()).map(|o| output(row, o)).collect()).collect()
    }

    fn add_norm(&self, name: &str, a: &Rows, b: &Rows) -> Rows {
        let (gamma, beta) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let normalize_row = |(a, b): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            let sum: Vec<f64> = a.iter().zip(b).map(|(a, b)| a + b).collect();
            let mean = sum.iter().sum::<f64>() / WIDTH as f64;
            let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / WIDTH as f64;
            (0..WIDTH).map(|i| (sum[i] - mean) / (variance + EPS).sqrt() * gamma[i] + beta[i]).collect()
        };
        a.iter().zip(b).map(normalize_row).collect()
    }

    fn attention(&self, name: &str, rows: &Rows) -> Rows {
        let part = |part: &str| self.linear(&format!("{name}.self.{part}"), rows);
        let (query, key, value) = (part("query"), part("key"), part("value"));
        let depth = WIDTH / HEADS;
        let mut context = vec![vec![0.0; WIDTH]; rows.len()];
        for head in 0..HEADS {
            let range = head * depth..(head + 1) * depth;
            for (query, context) in query.iter().zip(&mut context) {
                let score = |key: &Vec<f64>| {
                    let dot: f64 = range.clone().map(|i| query[i] * key[i]).sum();
                    (dot / (depth as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = key.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for i in range.clone() {
                    context[i] = scores.iter().zip(&value).map(|(s, value)| s / total * value[i]).sum();
                }
            }
        }
        context
    }

    /// The vectors of the last layer, one per token.
    fn encode(&self, ids: &[u32]) -> Rows {
        let row = |table: &str, i: usize| -> Vec<f64> {
            self.values(&format!("embeddings.{table}.weight"))[i * WIDTH..][..WIDTH].to_vec()
        };
        let words: Rows = ids.iter().map(|&id| row("word_embeddings", id as usize)).collect();
        let position_rows: Rows = (0..ids.len())
            .map(|i| {
                let type_row = row("token_type_embeddings", 0);
                row("position_embeddings", i).iter().zip(type_row).map(|(a, b)| a + b).collect()
            })
            .collect();
        let mut hidden = self.add_norm("embeddings.LayerNorm", &words, &position_rows);
        for layer in 0..LAYERS {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let context = self.attention(&name("attention"), &hidden);
            let projected = self.linear(&name("attention.output.dense"), &context);
            hidden = self.add_norm(&name("attention.output.LayerNorm"), &hidden, &projected);
            let mut inner = self.linear(&name("intermediate.dense"), &hidden);
            inner.iter_mut().flatten().for_each(|x| *x = gelu(*x));
            let projected = self.linear(&name("output.dense"), &inner);
            hidden = self.add_norm(&name("output.LayerNorm"), &hidden, &projected);
        }
        hidden
    }
}

fn gelu(x: f64) -> f64 {
    // Computes erf with a series that avoids cancellation (Abramowitz and Stegun 7.1.6).
    let a = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (a, a);
    for n in 1..400 {
        term *= 2.0 * a * a / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 * x * (1.0 + std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() * sum)
}

fn mean(rows: &Rows) -> Vec<f64> {
    (0..WIDTH).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}

fn normalized(vector: Vec<f64>) -> Vec<f64> {
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}

/// Embeds texts of 1 to `TOKENS_MAX` tokens in one batch at every SIMD level, and compares each with the
/// naive forward pass over the weights of `oracle`, pooled by `pool`.
fn assert_matches_naive_encoder(
    model: &SyntheticModel,
    oracle: &SyntheticModel,
    pool: impl Fn(Rows) -> Vec<f64>,
) {
    let dir = model.write();
    let vocabulary = VOCABULARY.len();
    let batch: Vec<Tokens> = (1..=TOKENS_MAX)
        .map(|len| Tokens { ids: (0..len).map(|i| (i * 7 % vocabulary) as u32).collect(), truncated: false })
        .collect();
    for cpu in Cpu::each_level() {
        let loaded = Model::load(dir.path(), cpu, &ComputeType::ALL).expect("the model is valid");
        for compute in ComputeType::ALL {
            let vectors = loaded.embed(&batch, compute);
            assert_eq!(vectors.len(), batch.len() * WIDTH);
            for (text, vector) in batch.iter().zip(vectors.chunks_exact(WIDTH)) {
                let expected = pool(NaiveEncoder(oracle).encode(&text.ids));
                let length = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
                let error = vector.iter().zip(&expected).map(|(&found, x)| (f64::from(found) - x).powi(2));
                let error = error.sum::<f64>().sqrt() / length;
                let bound = match compute {
                    ComputeType::F32 => 1e-5,
                    ComputeType::Bf16 => 0.02,
                    ComputeType::Int8 => 0.05,
                };
                assert!(
                    error <= bound,
                    "seed {SEED}, {cpu:?}, {compute:?}, {} tokens: relative error {error}",
                    text.ids.len()
                );
            }
        }
    }
}

#[test]
fn supports_mean_pooling_with_normalization() {
    let model = SyntheticModel::new(SEED);
    assert_matches_naive_encoder(&model, &model, |rows| normalized(mean(&rows)));
}

#[test]
fn supports_mean_pooling_without_normalization() {
    let model = SyntheticModel::new(SEED).without_normalize();
    assert_matches_naive_encoder(&model, &model, |rows| mean(&rows));
}

#[test]
fn supports_cls_pooling() {
    let model = SyntheticModel::new(SEED).with_cls_pooling();
    assert_matches_naive_encoder(&model, &model, |rows| normalized(rows[0].clone()));
    assert_matches_naive_encoder(&model.clone().without_normalize(), &model, |rows| rows[0].clone());
}

#[test]
fn supports_the_pooling_names_of_newer_files() {
    let mut model = SyntheticModel::new(SEED);
    model.files.insert("1_Pooling/config.json", json!({"embedding_dimension": WIDTH, "pooling_mode": "cls"}));
    assert_matches_naive_encoder(&model, &model, |rows| normalized(rows[0].clone()));
}

#[test]
fn supports_tensor_names_with_a_prefix() {
    let model = SyntheticModel { prefix: "bert.", ..SyntheticModel::new(SEED) };
    assert_matches_naive_encoder(&model, &model, |rows| normalized(mean(&rows)));
}

#[test]
fn supports_half_precision_weights() {
    // Both types represent the random weights exactly.
    let exact = SyntheticModel::new(SEED);
    for dtype in ["F16", "BF16"] {
        assert_matches_naive_encoder(&SyntheticModel { dtype, ..exact.clone() }, &exact, |rows| {
            normalized(mean(&rows))
        });
    }
}

#[test]
fn the_models_length_limit_overrides_truncation_and_padding_in_the_tokenizer_file() {
    let dir = SyntheticModel::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("the model is valid");
    assert_eq!((model.dim(), model.tokens_max()), (WIDTH, TOKENS_MAX));
    assert_eq!(Some(model.name()), dir.path().file_name().and_then(|name| name.to_str()));
    let tokens = |text: &str| {
        let tokens = model.tokenize(text);
        (tokens.ids, tokens.truncated)
    };
    assert_eq!(tokens(""), (vec![2, 3], false));
    assert_eq!(tokens("Stones? seaside zebra"), (vec![2, 6, 7, 11, 9, 10, 1, 3], false));
    let full: Vec<u32> = [vec![2], vec![5; TOKENS_MAX - 2], vec![3]].concat();
    assert_eq!(tokens(&"river ".repeat(TOKENS_MAX - 2)), (full.clone(), false));
    for words in [TOKENS_MAX - 1, TOKENS_MAX, TOKENS_MAX + 1, 1000] {
        assert_eq!(tokens(&"river ".repeat(words)), (full.clone(), true), "{words} words");
    }
}

#[test]
fn long_texts_give_a_prefix_of_the_tokens_of_the_whole_text() {
    let dir = SyntheticModel::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("the model is valid");
    let mut whole = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).expect("a tokenizer");
    whole.with_padding(None).with_truncation(None).expect("no truncation");
    let pieces =
        ["river", "stones", " ", "  \n", "seaside?", "zebra", "\u{3000}", "\u{301}", "石", "🙂", "[SEP]"];
    let mut texts = vec!["x".repeat(1 << 20), " ".repeat(1 << 20), " ".repeat(5000) + "river"];
    let mut state = SEED;
    for _ in 0..300 {
        let mut text = String::new();
        while text.len() < 400 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text += &pieces[(state >> 33) as usize % pieces.len()].repeat(1 + (state >> 60) as usize);
        }
        texts.push(text);
    }
    for text in texts {
        let all = whole.encode_fast(text.as_str(), true).expect("tokens");
        let (mut expected, truncated) = (all.get_ids().to_vec(), all.len() > TOKENS_MAX);
        if truncated {
            expected.truncate(TOKENS_MAX - 1);
            expected.push(3);
        }
        let found = model.tokenize(&text);
        assert_eq!((found.ids, found.truncated), (expected, truncated), "seed {SEED}: {text:?}");
    }
}

#[test]
fn detects_truncation_without_special_tokens() {
    let mut model = SyntheticModel::new(SEED);
    model.files.get_mut("tokenizer.json").expect("the tokenizer")["post_processor"] = Value::Null;
    let dir = model.write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("the model is valid");
    for (words, truncated) in [(0, false), (TOKENS_MAX, false), (TOKENS_MAX + 1, true), (1000, true)] {
        let tokens = model.tokenize(&"river ".repeat(words));
        assert_eq!((tokens.ids.len(), tokens.truncated), (words.min(TOKENS_MAX), truncated));
    }
    for compute in ComputeType::ALL {
        let vector = model.embed(&[model.tokenize("")], compute);
        assert_eq!(vector, vec![0.0; WIDTH], "{compute:?}: an empty text has a zero vector");
    }
}

#[test]
fn the_positions_and_the_tokenizer_config_limit_the_length_by_default() {
    let mut model = SyntheticModel::new(SEED);
    model.files.remove("sentence_bert_config.json");
    for (length, expected) in [(None, 16), (Some(json!(9)), 9), (Some(json!(1e30)), 16)] {
        if let Some(length) = length {
            model.files.insert("tokenizer_config.json", json!({"model_max_length": length}));
        }
        let dir = model.write();
        assert_eq!(
            Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("loads").tokens_max(),
            expected
        );
    }
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_batch() {
    let dir = SyntheticModel::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("the model is valid");
    let texts: Vec<Tokens> = (0..300).map(|i| model.tokenize(&"river stones? ".repeat(i % 5))).collect();
    for compute in ComputeType::ALL {
        let vectors = model.embed(&texts, compute);
        for (text, vector) in texts.iter().zip(vectors.chunks_exact(WIDTH)) {
            assert_eq!(model.embed(std::slice::from_ref(text), compute), vector, "{compute:?}");
        }
        assert!(model.embed(&[], compute).is_empty());
    }
}

#[test]
fn vectors_do_not_depend_on_which_other_compute_types_are_loaded() {
    let dir = SyntheticModel::new(SEED).write();
    let load = |computes: &[ComputeType]| {
        Model::load(dir.path(), Cpu::detect(), computes).expect("the model is valid")
    };
    let all = load(&ComputeType::ALL);
    let text = [all.tokenize("river stones? green seaside")];
    for compute in ComputeType::ALL {
        let alone = load(&[compute, compute]);
        assert_eq!(alone.embed(&text, compute), all.embed(&text, compute), "{compute:?}");
        assert_eq!(
            alone.fingerprint(),
            all.fingerprint(),
            "the fingerprint does not depend on the compute types"
        );
    }
}

#[test]
fn a_deferred_compute_type_gives_the_same_vectors() {
    let dir = SyntheticModel::new(SEED).write();
    for compute in ComputeType::ALL {
        let others: Vec<ComputeType> =
            ComputeType::ALL.into_iter().filter(|other| *other != compute).collect();
        let load = |now: &[ComputeType], later: &[ComputeType]| {
            Model::load_with_deferred(dir.path(), Cpu::detect(), now, later).expect("the model is valid")
        };
        let (eager, deferred) = (load(&ComputeType::ALL, &[]), load(&others, &[compute]));
        let text = [eager.tokenize("river stones? green seaside")];
        assert!(eager.is_prepared(compute) && !deferred.is_prepared(compute));
        for other in others {
            assert_eq!(deferred.embed(&text, other), eager.embed(&text, other), "{other:?}");
        }
        for _ in 0..2 {
            deferred.prepare(compute).expect("the files are still there");
            assert_eq!(deferred.embed(&text, compute), eager.embed(&text, compute), "{compute:?}");
        }
    }
}

#[test]
fn preparing_a_deferred_compute_type_fails_if_the_weights_have_changed() {
    let dir = SyntheticModel::new(SEED).write();
    let load =
        || Model::load_with_deferred(dir.path(), Cpu::detect(), &[ComputeType::Int8], &[ComputeType::Bf16]);
    let model = load().expect("the model is valid");
    std::fs::write(weights_path(dir.path()), SyntheticModel::new(SEED + 1).safetensors()).expect("written");
    let error = model.prepare(ComputeType::Bf16).expect_err("the weights have changed");
    assert!(matches!(error, LoadError::Changed { .. }), "{error}");
    assert!(error.to_string().contains("restart"), "{error}");
    assert!(!model.is_prepared(ComputeType::Bf16));
    load().expect("the new model is valid").prepare(ComputeType::Bf16).expect("nothing changed since");
}

#[test]
#[should_panic(expected = "the model was not loaded for this compute type")]
fn panics_if_the_compute_type_was_not_loaded() {
    let dir = SyntheticModel::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &[ComputeType::Bf16]).expect("the model is valid");
    model.embed(&[model.tokenize("river")], ComputeType::Int8);
}

#[test]
fn the_fingerprint_depends_on_weights_vocabulary_and_settings() {
    let fingerprint = |model: &SyntheticModel| {
        let dir = model.write();
        Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("the model is valid").fingerprint()
    };
    let base = SyntheticModel::new(SEED);
    assert_eq!(fingerprint(&base), fingerprint(&base), "the fingerprint does not depend on the directory");
    let mut tokenizer = base.clone();
    tokenizer.files.get_mut("tokenizer.json").expect("the tokenizer")["normalizer"]["lowercase"] =
        json!(false);
    let others = [
        SyntheticModel::new(SEED + 1),
        tokenizer,
        base.clone().without_normalize(),
        base.clone().with_cls_pooling(),
        base.clone().with("sentence_bert_config.json", "max_seq_length", json!(TOKENS_MAX - 1)),
        base.clone().with("config.json", "num_attention_heads", json!(HEADS + 1)),
    ];
    let mut all: Vec<_> = others.iter().chain([&base]).map(fingerprint).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), others.len() + 1);
}

#[test]
fn prompts_precede_queries_and_documents() {
    let file = "config_sentence_transformers.json";
    let tokens = |model: &SyntheticModel| {
        let dir = model.write();
        let model = Model::load(dir.path(), Cpu::detect(), &[ComputeType::F32]).expect("the model is valid");
        (model.tokenize_query("sea").ids, model.tokenize("sea").ids, model.fingerprint())
    };
    let mut model = SyntheticModel::new(SEED);
    let (query, document, plain) = tokens(&model);
    assert_eq!((query, document), (vec![2, 9, 3], vec![2, 9, 3]));
    // The document prompt changes the vectors of documents and thus the fingerprint. The query prompt does not.
    for (config, query, document, same) in [
        (json!({"prompts": {}, "default_prompt_name": null}), vec![2, 9, 3], vec![2, 9, 3], true),
        (json!({"prompts": {"query": "green "}}), vec![2, 8, 9, 3], vec![2, 9, 3], true),
        (
            json!({"prompts": {"query": "green ", "passage": "stone? "}}),
            vec![2, 8, 9, 3],
            vec![2, 6, 11, 9, 3],
            false,
        ),
        (
            json!({"prompts": {"query": "green ", "x": "river "}, "default_prompt_name": "x"}),
            vec![2, 8, 9, 3],
            vec![2, 5, 9, 3],
            false,
        ),
    ] {
        model.files.insert(file, config);
        let found = tokens(&model);
        assert_eq!((found.0, found.1, found.2 == plain), (query, document, same));
    }
}

#[test]
fn known_model_families_have_default_prompts() {
    let dir = SyntheticModel::new(SEED).write();
    let renamed = dir.path().join("e5-small-v2");
    std::fs::create_dir(&renamed).expect("a directory");
    for entry in std::fs::read_dir(dir.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path != renamed {
            std::fs::rename(&path, renamed.join(path.file_name().expect("a name"))).expect("moved");
        }
    }
    let model = Model::load(&renamed, Cpu::detect(), &[ComputeType::F32]).expect("the model is valid");
    // Neither the word in each prompt nor the colon is in the vocabulary.
    assert_eq!(model.tokenize_query("sea").ids, [2, 1, 1, 9, 3]);
    assert_eq!(model.tokenize("sea").ids, [2, 1, 1, 9, 3]);
}

/// Multilingual models use Unigram tokenizers, in which spaces are part of the pieces.
#[test]
fn supports_unigram_tokenizers() {
    let mut model = SyntheticModel::new(SEED);
    let vocabulary: Vec<Value> =
        ["<s>", "<pad>", "</s>", "<unk>", "\u{2581}", "\u{2581}river", "s", "\u{2581}sea"]
            .iter()
            .enumerate()
            .map(|(id, piece)| json!([piece, -(id as f64)]))
            .collect();
    let special = |piece: &str, id: u32| json!({"id": piece, "ids": [id], "tokens": [piece]});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "decoder": null,
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<s>": special("<s>", 0), "</s>": special("</s>", 2)},
        },
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": false},
    });
    model.files.insert("tokenizer.json", file);
    let dir = model.write();
    let model = Model::load(dir.path(), Cpu::detect(), &[ComputeType::F32]).expect("the model is valid");
    assert_eq!(model.tokenize("rivers sea").ids, [0, 5, 6, 7, 2]);
    assert!(model.tokenize(&"sea ".repeat(100)).truncated);
}
