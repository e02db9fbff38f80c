//! A small BERT tokenizer built in code, for tests and fuzzing.

use std::{collections::BTreeSet, path::Path};

use super::Tokenizer;

/// Ranges of characters from which texts are composed: the first and the last character of each.
pub(crate) const SCRIPTS: [(char, char); 18] = [
    (' ', '~'),
    ('\0', '\u{A0}'),
    ('À', 'ɏ'),
    ('\u{300}', '\u{36F}'),
    ('Ͱ', 'Ͽ'),
    ('Ѐ', 'ԯ'),
    ('\u{590}', '\u{5FF}'),
    ('\u{600}', '\u{6FF}'),
    ('\u{900}', '\u{97F}'),
    ('\u{E00}', '\u{E7F}'),
    ('Ḁ', 'ỿ'),
    ('\u{1F00}', '\u{1FFF}'),
    ('\u{2000}', '\u{206F}'),
    ('\u{20A0}', '\u{214F}'),
    ('\u{3030}', '\u{30FF}'),
    ('一', '三'),
    ('가', '깋'),
    ('\u{1F300}', '\u{1F64F}'),
];

/// Builds a tokenizer whose vocabulary covers every script, with short and long pieces.
pub(crate) fn small_tokenizer() -> Tokenizer {
    let mut pieces: BTreeSet<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into();
    for (first, last) in SCRIPTS {
        for character in (first..=last).step_by(3) {
            let small: String = character.to_lowercase().collect();
            pieces.extend([
                small.clone(),
                format!("##{small}"),
                format!("{small}e"),
                format!("##{small}{small}"),
            ]);
        }
    }
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), id.into())).collect();
    let id = |piece: &str| vocabulary[piece].as_u64().expect("an id");
    let special = |piece: &str| serde_json::json!({"id": piece, "ids": [id(piece)], "tokens": [piece]});
    let added = ["[CLS]", "[SEP]", "[MASK]"].map(|piece| {
        serde_json::json!({
            "id": id(piece), "special": true, "content": piece, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "decoder": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
        },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 20, "vocab": vocabulary,
        },
    });
    parse(&serde_json::to_vec(&file).expect("plain JSON"), 40)
}

pub(crate) fn parse(bytes: &[u8], tokens_max: usize) -> Tokenizer {
    Tokenizer::parse(Path::new("tokenizer.json"), bytes, tokens_max, false, 4_000_000)
        .expect("the tokenizer is valid")
}

/// Asserts that our tokenizer gives the same result as the library. Returns `false` if it does not support the
/// text.
pub(crate) fn matches_library(tokenizer: &Tokenizer, text: &str) -> bool {
    let wordpiece = tokenizer.wordpiece.as_ref().expect("the vocabulary is BERT's");
    let Some(tokens) = wordpiece.tokenize(text, tokenizer.tokens_max) else { return false };
    assert_eq!(tokens, tokenizer.tokenize_with_library(text), "{text:?}");
    true
}
