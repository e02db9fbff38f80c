//! Compares all-MiniLM-L6-v2 with the texts and vectors that tools/reference_vectors.py computed with
//! sentence-transformers.

use embed::{ComputeType, Model, Tokens};
use kernels::simd::Cpu;
use testing::real_model;

struct Reference {
    text: String,
    tokens: usize,
    truncated: bool,
    vector: Vec<f32>,
}

fn references() -> Vec<Reference> {
    let vectors: Vec<f32> = include_bytes!("data/reference.f32")
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect();
    // `lines` is unsuitable, because a text may contain a carriage return.
    let lines: Vec<&str> = include_str!("data/reference.jsonl").trim_end_matches('\n').split('\n').collect();
    assert_eq!(vectors.len(), lines.len() * 384);
    assert!(lines.len() >= 220);
    let parsed = lines.iter().zip(vectors.chunks_exact(384)).map(|(line, vector)| {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is an object");
        Reference {
            text: line["text"].as_str().expect("text").to_owned(),
            tokens: line["tokens"].as_u64().expect("tokens") as usize,
            truncated: line["truncated"].as_bool().expect("truncated"),
            vector: vector.to_vec(),
        }
    });
    parsed.collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn assert_matches(reference: &Reference, found: &[f32], case: &str) {
    let length = dot(found, found).sqrt();
    assert!((length - 1.0).abs() < 1e-5, "{case}: {:?} has length {length}", reference.text);
    let cosine = dot(&reference.vector, found) / length;
    assert!(cosine >= 0.99999, "{case}: {:?} has cosine {cosine}", reference.text);
}

#[test]
fn token_counts_match_the_reference() {
    let Some(dir) = real_model::minilm() else { return };
    let model = Model::load(&dir, Cpu::detect(), &[ComputeType::F32]).expect("the model loads");
    for reference in references() {
        let tokens = model.tokenize(&reference.text);
        assert_eq!(
            (tokens.ids.len(), tokens.truncated),
            (reference.tokens, reference.truncated),
            "{:?}",
            reference.text
        );
    }
}

#[test]
fn vectors_match_the_reference_at_every_simd_level_alone_and_in_batches() {
    let Some(dir) = real_model::minilm() else { return };
    let references = references();
    for cpu in Cpu::each_level() {
        let model = Model::load(&dir, cpu, &[ComputeType::F32]).expect("the model loads");
        let tokens: Vec<Tokens> = references.iter().map(|r| model.tokenize(&r.text)).collect();
        // Consecutive texts in the file are similar in length; a stride coprime to their number mixes them.
        // The best level embeds all texts. Slower levels skip three of four long texts to save minutes.
        let order: Vec<usize> = (0..tokens.len())
            .map(|i| i * 97 % tokens.len())
            .filter(|&i| cpu == Cpu::detect() || tokens[i].ids.len() <= 64 || i % 4 == 0)
            .collect();
        let batch: Vec<Tokens> = order.iter().map(|&i| tokens[i].clone()).collect();
        let together = model.embed(&batch, ComputeType::F32);
        for (&i, vector) in order.iter().zip(together.chunks_exact(model.dim())) {
            assert_matches(&references[i], vector, &format!("{:?}, in a batch", cpu.level()));
            if cpu != Cpu::detect() && tokens[i].ids.len() > 32 {
                continue;
            }
            let alone = model.embed(&tokens[i..=i], ComputeType::F32);
            assert_matches(&references[i], &alone, &format!("{:?}, alone", cpu.level()));
            assert_eq!(alone, vector, "{:?}: {:?} depends on its batch", cpu.level(), references[i].text);
        }
    }
}

#[test]
fn bf16_and_int8_are_close_to_the_reference_and_identical_at_every_simd_level() {
    let Some(dir) = real_model::minilm() else { return };
    let references = references();
    // Required mean and minimum cosine similarity to the reference.
    for (compute, mean_min, cosine_min) in
        [(ComputeType::Bf16, 0.9999, 0.9999), (ComputeType::Int8, 0.999, 0.997)]
    {
        let mut best_vectors: Vec<Option<Vec<f32>>> = vec![None; references.len()];
        for cpu in [Cpu::detect()].into_iter().chain(Cpu::each_level().filter(|cpu| *cpu != Cpu::detect())) {
            let model = Model::load(&dir, cpu, &[compute]).expect("the model loads");
            let tokens: Vec<Tokens> = references.iter().map(|r| model.tokenize(&r.text)).collect();
            // Slower levels skip long texts and two of three others to save minutes.
            let selected: Vec<usize> = (0..tokens.len())
                .filter(|&i| cpu == Cpu::detect() || (tokens[i].ids.len() <= 40 && i % 3 == 0))
                .collect();
            let batch: Vec<Tokens> = selected.iter().map(|&i| tokens[i].clone()).collect();
            let vectors = model.embed(&batch, compute);
            let mut cosines = Vec::new();
            for (&i, vector) in selected.iter().zip(vectors.chunks_exact(model.dim())) {
                cosines.push(dot(&references[i].vector, vector));
                let best = best_vectors[i].get_or_insert_with(|| vector.to_vec());
                assert_eq!(best, vector, "{compute:?}, {:?}: {:?}", cpu.level(), references[i].text);
            }
            let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
            let min = cosines.iter().copied().fold(1.0, f64::min);
            let found = format!(
                "{compute:?}, {:?}: cosine to the reference {mean:.5}, minimum {min:.5}",
                cpu.level()
            );
            eprintln!("{found}");
            assert!(mean >= mean_min && min >= cosine_min, "{found}");
        }
    }
}

#[test]
fn the_models_length_limit_overrides_the_tokenizer_file() {
    // In this model, tokenizer.json truncates and pads to 128 tokens, but sentence_bert_config.json says 256.
    let Some(dir) = real_model::minilm() else { return };
    let model = Model::load(&dir, Cpu::detect(), &[ComputeType::F32]).expect("the model loads");
    assert_eq!((model.name(), model.dim(), model.tokens_max()), ("all-MiniLM-L6-v2", 384, 256));
    for (words, expected) in [(0, 2), (1, 3), (198, 200), (254, 256)] {
        let tokens = model.tokenize(&"river ".repeat(words));
        assert_eq!((tokens.ids.len(), tokens.truncated), (expected, false), "{words} words");
    }
    for words in [255, 256, 257, 100_000] {
        let tokens = model.tokenize(&"river ".repeat(words));
        assert_eq!((tokens.ids.len(), tokens.truncated), (256, true), "{words} words");
        assert_eq!((tokens.ids[0], tokens.ids[255]), (101, 102), "[CLS] and [SEP] are kept");
    }
    let (short, long) = ("river ".repeat(126), "river ".repeat(126) + &"mountain ".repeat(72));
    let vectors = model.embed(&[model.tokenize(&short), model.tokenize(&long)], ComputeType::F32);
    assert_ne!(vectors[..384], vectors[384..], "tokens after the first 128 must affect the vector");
}
