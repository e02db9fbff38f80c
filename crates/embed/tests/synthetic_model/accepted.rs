//! A small random BERT against a plain double-precision forward pass.

use crate::synthetic::{EPS, HEADS, LAYERS, Synthetic, TOKENS_MAX, VOCABULARY, WIDTH, weights_path};
use embed::{ComputeType, LoadError, Model, Tokens};
use kernels::simd::Cpu;
use serde_json::{Value, json};

const SEED: u64 = 20_240_229;

/// The forward pass as the papers write it, one token and one value at a time.
struct Naive<'a>(&'a Synthetic);

type Rows = Vec<Vec<f64>>;

impl Naive<'_> {
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
        let of_row = |(a, b): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            let sum: Vec<f64> = a.iter().zip(b).map(|(a, b)| a + b).collect();
            let mean = sum.iter().sum::<f64>() / WIDTH as f64;
            let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / WIDTH as f64;
            (0..WIDTH).map(|i| (sum[i] - mean) / (variance + EPS).sqrt() * gamma[i] + beta[i]).collect()
        };
        a.iter().zip(b).map(of_row).collect()
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

    /// Vectors of the last layer, a token each.
    fn encode(&self, ids: &[u32]) -> Rows {
        let row = |table: &str, i: usize| -> Vec<f64> {
            self.values(&format!("embeddings.{table}.weight"))[i * WIDTH..][..WIDTH].to_vec()
        };
        let words: Rows = ids.iter().map(|&id| row("word_embeddings", id as usize)).collect();
        let places: Rows = (0..ids.len())
            .map(|i| {
                let of_type = row("token_type_embeddings", 0);
                row("position_embeddings", i).iter().zip(of_type).map(|(a, b)| a + b).collect()
            })
            .collect();
        let mut hidden = self.add_norm("embeddings.LayerNorm", &words, &places);
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
    // erf by a series without cancellation: Abramowitz and Stegun 7.1.6.
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

/// Embeds texts of 1 to `TOKENS_MAX` tokens in one batch, at every level, and compares each with
/// what `pool` makes of the naive pass over `oracle`'s weights.
fn check(model: &Synthetic, oracle: &Synthetic, pool: impl Fn(Rows) -> Vec<f64>) {
    let dir = model.write();
    let vocabulary = VOCABULARY.len();
    let batch: Vec<Tokens> = (1..=TOKENS_MAX)
        .map(|len| Tokens { ids: (0..len).map(|i| (i * 7 % vocabulary) as u32).collect(), truncated: false })
        .collect();
    for cpu in Cpu::each_level() {
        let loaded = Model::load(dir.path(), cpu, &ComputeType::ALL).expect("a model in good order");
        for compute in ComputeType::ALL {
            let vectors = loaded.embed(&batch, compute);
            assert_eq!(vectors.len(), batch.len() * WIDTH);
            for (text, vector) in batch.iter().zip(vectors.chunks_exact(WIDTH)) {
                let expected = pool(Naive(oracle).encode(&text.ids));
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
fn mean_pooling_normalised() {
    let model = Synthetic::new(SEED);
    check(&model, &model, |rows| normalized(mean(&rows)));
}

#[test]
fn mean_pooling_as_it_is() {
    let model = Synthetic::new(SEED).without_normalize();
    check(&model, &model, |rows| mean(&rows));
}

#[test]
fn cls_pooling() {
    let model = Synthetic::new(SEED).with_cls_pooling();
    check(&model, &model, |rows| normalized(rows[0].clone()));
    check(&model.clone().without_normalize(), &model, |rows| rows[0].clone());
}

#[test]
fn pooling_named_as_newer_files_name_it() {
    let mut model = Synthetic::new(SEED);
    model.files.insert("1_Pooling/config.json", json!({"embedding_dimension": WIDTH, "pooling_mode": "cls"}));
    check(&model, &model, |rows| normalized(rows[0].clone()));
}

#[test]
fn tensor_names_with_a_prefix() {
    let model = Synthetic { prefix: "bert.", ..Synthetic::new(SEED) };
    check(&model, &model, |rows| normalized(mean(&rows)));
}

#[test]
fn half_precision_files() {
    // The random weights are such that neither type rounds them.
    let exact = Synthetic::new(SEED);
    for dtype in ["F16", "BF16"] {
        check(&Synthetic { dtype, ..exact.clone() }, &exact, |rows| normalized(mean(&rows)));
    }
}

#[test]
fn length_and_padding_are_the_models_and_not_the_tokenizer_files() {
    let dir = Synthetic::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("a model in good order");
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
    for more in [TOKENS_MAX - 1, TOKENS_MAX, TOKENS_MAX + 1, 1000] {
        assert_eq!(tokens(&"river ".repeat(more)), (full.clone(), true), "{more} words");
    }
}

#[test]
fn long_texts_give_the_tokens_of_the_whole_text() {
    let dir = Synthetic::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("a model in good order");
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
fn without_special_tokens_truncation_is_still_seen() {
    let mut model = Synthetic::new(SEED);
    model.files.get_mut("tokenizer.json").expect("the tokenizer")["post_processor"] = Value::Null;
    let dir = model.write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("a model in good order");
    for (words, truncated) in [(0, false), (TOKENS_MAX, false), (TOKENS_MAX + 1, true), (1000, true)] {
        let tokens = model.tokenize(&"river ".repeat(words));
        assert_eq!((tokens.ids.len(), tokens.truncated), (words.min(TOKENS_MAX), truncated));
    }
    for compute in ComputeType::ALL {
        let vector = model.embed(&[model.tokenize("")], compute);
        assert_eq!(vector, vec![0.0; WIDTH], "{compute:?}: nothing has no direction");
    }
}

#[test]
fn without_a_length_the_positions_and_the_tokenizer_bound_it() {
    let mut model = Synthetic::new(SEED);
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
fn a_batch_of_any_size_gives_the_rows_of_its_texts() {
    let dir = Synthetic::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL).expect("a model in good order");
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
fn a_kind_gives_the_same_vectors_whatever_else_was_loaded() {
    let dir = Synthetic::new(SEED).write();
    let load = |computes: &[ComputeType]| {
        Model::load(dir.path(), Cpu::detect(), computes).expect("a model in good order")
    };
    let all = load(&ComputeType::ALL);
    let text = [all.tokenize("river stones? green seaside")];
    for compute in ComputeType::ALL {
        let alone = load(&[compute, compute]);
        assert_eq!(alone.embed(&text, compute), all.embed(&text, compute), "{compute:?}");
        assert_eq!(alone.fingerprint(), all.fingerprint(), "a fingerprint is of the weights");
    }
}

#[test]
fn a_kind_that_was_put_off_gives_the_same_vectors() {
    let dir = Synthetic::new(SEED).write();
    for compute in ComputeType::ALL {
        let others: Vec<ComputeType> =
            ComputeType::ALL.into_iter().filter(|other| *other != compute).collect();
        let load = |now: &[ComputeType], later: &[ComputeType]| {
            Model::load_with_deferred(dir.path(), Cpu::detect(), now, later).expect("a model in good order")
        };
        let (at_once, partly) = (load(&ComputeType::ALL, &[]), load(&others, &[compute]));
        let text = [at_once.tokenize("river stones? green seaside")];
        assert!(at_once.is_prepared(compute) && !partly.is_prepared(compute));
        for other in others {
            assert_eq!(partly.embed(&text, other), at_once.embed(&text, other), "{other:?}");
        }
        for _ in 0..2 {
            partly.prepare(compute).expect("the files are still there");
            assert_eq!(partly.embed(&text, compute), at_once.embed(&text, compute), "{compute:?}");
        }
    }
}

#[test]
fn a_kind_that_was_put_off_does_not_come_from_other_weights() {
    let dir = Synthetic::new(SEED).write();
    let load =
        || Model::load_with_deferred(dir.path(), Cpu::detect(), &[ComputeType::Int8], &[ComputeType::Bf16]);
    let model = load().expect("a model in good order");
    std::fs::write(weights_path(dir.path()), Synthetic::new(SEED + 1).safetensors()).expect("written");
    let error = model.prepare(ComputeType::Bf16).expect_err("the weights are others");
    assert!(matches!(error, LoadError::Changed { .. }), "{error}");
    assert!(error.to_string().contains("restart"), "{error}");
    assert!(!model.is_prepared(ComputeType::Bf16));
    load().expect("the others are in good order").prepare(ComputeType::Bf16).expect("nothing changed since");
}

#[test]
#[should_panic(expected = "a model computes in what it was loaded for")]
fn a_kind_that_was_not_loaded_is_refused() {
    let dir = Synthetic::new(SEED).write();
    let model = Model::load(dir.path(), Cpu::detect(), &[ComputeType::Bf16]).expect("a model in good order");
    model.embed(&[model.tokenize("river")], ComputeType::Int8);
}

#[test]
fn the_fingerprint_follows_weights_vocabulary_and_settings() {
    let fingerprint = |model: &Synthetic| {
        let dir = model.write();
        Model::load(dir.path(), Cpu::detect(), &ComputeType::ALL)
            .expect("a model in good order")
            .fingerprint()
    };
    let base = Synthetic::new(SEED);
    assert_eq!(fingerprint(&base), fingerprint(&base), "the directory's name does not count");
    let mut tokenizer = base.clone();
    tokenizer.files.get_mut("tokenizer.json").expect("the tokenizer")["normalizer"]["lowercase"] =
        json!(false);
    let others = [
        Synthetic::new(SEED + 1),
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
fn prompts_stand_before_queries_and_documents() {
    let file = "config_sentence_transformers.json";
    let tokens = |model: &Synthetic| {
        let dir = model.write();
        let model =
            Model::load(dir.path(), Cpu::detect(), &[ComputeType::F32]).expect("a model in good order");
        (model.tokenize_query("sea").ids, model.tokenize("sea").ids, model.fingerprint())
    };
    let mut model = Synthetic::new(SEED);
    let (query, document, plain) = tokens(&model);
    assert_eq!((query, document), (vec![2, 9, 3], vec![2, 9, 3]));
    // The prompt of documents makes other vectors of them, the prompt of queries does not.
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
fn a_family_whose_files_name_no_prompts_gets_its_own() {
    let dir = Synthetic::new(SEED).write();
    let renamed = dir.path().join("e5-small-v2");
    std::fs::create_dir(&renamed).expect("a directory");
    for entry in std::fs::read_dir(dir.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path != renamed {
            std::fs::rename(&path, renamed.join(path.file_name().expect("a name"))).expect("moved");
        }
    }
    let model = Model::load(&renamed, Cpu::detect(), &[ComputeType::F32]).expect("a model in good order");
    // Neither word of the prompts nor the colon is in the vocabulary.
    assert_eq!(model.tokenize_query("sea").ids, [2, 1, 1, 9, 3]);
    assert_eq!(model.tokenize("sea").ids, [2, 1, 1, 9, 3]);
}

/// The tokenizer of multilingual models: pieces of a text in which spaces are letters.
#[test]
fn a_unigram_tokenizer() {
    let mut model = Synthetic::new(SEED);
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
    let model = Model::load(dir.path(), Cpu::detect(), &[ComputeType::F32]).expect("a model in good order");
    assert_eq!(model.tokenize("rivers sea").ids, [0, 5, 6, 7, 2]);
    assert!(model.tokenize(&"sea ".repeat(100)).truncated);
}
