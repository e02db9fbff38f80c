use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::small::{SCRIPTS, agrees, parse, small};
use super::*;

#[path = "../../tests/minilm/mod.rs"]
mod minilm;

/// all-MiniLM-L6-v2's, where the model is installed.
fn minilm() -> Option<Tokenizer> {
    let bytes = std::fs::read(minilm::dir()?.join("tokenizer.json")).expect("a readable tokenizer");
    Some(parse(&bytes, 256))
}

/// Words of one to a few scripts, some far too long.
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
    fn makes_of_any_text_what_the_library_makes(text in text()) {
        thread_local!(static SMALL: Tokenizer = small());
        SMALL.with(|small| {
            let holds_reserved = ["[CLS]", "[SEP]", "[MASK]"].iter().any(|word| text.contains(word));
            prop_assert_eq!(agrees(small, &text), !holds_reserved);
            Ok(())
        })?;
    }
}

#[test]
fn knows_every_character_there_is() {
    let small = small();
    // The first plane, which holds the living scripts, and some of every block of the others.
    let asked = |character: &char| *character < '\u{10000}' || (*character as u32).is_multiple_of(16);
    let unclear: Vec<char> = ('\0'..=char::MAX)
        .filter(asked)
        .filter(|character| !agrees(&small, &format!("a{character}b {character}")))
        .collect();
    assert!(unclear.contains(&'\u{302E}'));
    assert!(unclear.len() < 10, "left to the library: {unclear:?}");
}

#[test]
fn leaves_reserved_words_to_the_library() {
    let small = small();
    for text in ["[SEP]", "a [MASK] b", "a[CLS]"] {
        assert!(!agrees(&small, text), "{text:?}");
        assert_eq!(small.tokenize(text), small.by_library(text));
    }
    assert!(agrees(&small, "[sep] [ SEP ]"));
}

#[test]
fn cuts_where_the_library_cuts() {
    let small = small();
    for words in 36..42 {
        for end in ["", " ", "\n\u{AD}"] {
            assert!(agrees(&small, &format!("{}{end}", "a ".repeat(words))));
        }
    }
    assert!(small.tokenize(&"a ".repeat(39)).truncated);
}

#[test]
fn makes_of_real_texts_what_the_library_makes() {
    let Some(minilm) = minilm() else { return };
    let shared = std::env::var_os("NEARFIELD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = shared.join("corpora/packages_250k.jsonl.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("SKIPPED: no {}", path.display());
        return;
    };
    let (mut texts, mut own) = (0, 0);
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines().take(100_000) {
        let line: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        texts += 1;
        own += usize::from(agrees(&minilm, line["text"].as_str().expect("a text")));
    }
    assert_eq!(texts, 100_000);
    assert!(own >= 99_900, "only {own} of {texts} texts are tokenized without the library");
}
