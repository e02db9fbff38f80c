use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::small_tokenizer::{SCRIPTS, matches_library, parse, small_tokenizer};
use super::*;

/// The tokenizer of all-MiniLM-L6-v2, if the model is installed.
fn minilm_tokenizer() -> Option<Tokenizer> {
    let bytes =
        std::fs::read(testing::real_model::minilm()?.join("tokenizer.json")).expect("a readable tokenizer");
    Some(parse(&bytes, 256))
}

/// Words from several scripts, some of them longer than the limit.
fn text() -> impl Strategy<Value = String> {
    let character = (0..SCRIPTS.len()).prop_flat_map(|script| {
        let (first, last) = SCRIPTS[script];
        proptest::char::range(first, last)
    });
    let word = prop_oneof![
        6 => proptest::collection::vec(character.clone(), 0..8),
        1 => proptest::collection::vec(character, 15..30),
        3 => "[a-e]{1,6}".prop_map(|word| word.chars().collect()),
    ];
    let space = prop_oneof![8 => Just(' '), 1 => Just('\t'), 1 => Just('\u{3000}')];
    proptest::collection::vec((word, space), 0..24).prop_map(|words| {
        words.into_iter().flat_map(|(word, space)| word.into_iter().chain([space])).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_texts_match_the_library(text in text()) {
        thread_local!(static SMALL: Tokenizer = small_tokenizer());
        SMALL.with(|small| {
            let contains_special_token = ["[CLS]", "[SEP]", "[MASK]"].iter().any(|word| text.contains(word));
            prop_assert_eq!(matches_library(small, &text), !contains_special_token);
            Ok(())
        })?;
    }
}

#[test]
fn classifies_nearly_every_character() {
    let small = small_tokenizer();
    // All characters of the first plane, which contains the modern scripts, and a sample of the others.
    let is_sampled = |character: &char| *character < '\u{10000}' || (*character as u32).is_multiple_of(16);
    let unsupported: Vec<char> = ('\0'..=char::MAX)
        .filter(is_sampled)
        .filter(|character| !matches_library(&small, &format!("a{character}b {character}")))
        .collect();
    assert!(unsupported.contains(&'\u{302E}'));
    assert!(unsupported.len() < 10, "unsupported characters: {unsupported:?}");
}

#[test]
fn leaves_texts_with_special_tokens_to_the_library() {
    let small = small_tokenizer();
    for text in ["[SEP]", "a [MASK] b", "a[CLS]"] {
        assert!(!matches_library(&small, text), "{text:?}");
        assert_eq!(small.tokenize(text), small.tokenize_with_library(text));
    }
    assert!(matches_library(&small, "[sep] [ SEP ]"));
}

#[test]
fn truncates_where_the_library_truncates() {
    let small = small_tokenizer();
    for words in 36..42 {
        for end in ["", " ", "\n\u{AD}"] {
            assert!(matches_library(&small, &format!("{}{end}", "a ".repeat(words))));
        }
    }
    assert!(small.tokenize(&"a ".repeat(39)).truncated);
}

#[test]
fn real_texts_match_the_library() {
    let Some(minilm) = minilm_tokenizer() else { return };
    let data = std::env::var_os("NEARFIELD_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = data.join("corpora/packages_250k.jsonl.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("SKIPPED: no {}", path.display());
        return;
    };
    let (mut texts, mut supported) = (0, 0);
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines().take(100_000) {
        let line: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        texts += 1;
        supported += usize::from(matches_library(&minilm, line["text"].as_str().expect("a text")));
    }
    assert_eq!(texts, 100_000);
    assert!(supported >= 99_900, "only {supported} of {texts} texts are supported without the library");
}
