//! The effect of BERT's normalizer and pre-tokenizer on each character.
//!
//! Both process one character at a time. So this table queries the library once per character and
//! caches the result. It does so on first use, in blocks of 256 characters.

use std::sync::OnceLock;

use tokenizers::{
    NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper,
};

/// Number of characters that are classified at a time.
const BLOCK_CHARS: usize = 256;

/// Maximum number of UTF-8 bytes of a normalized character. A Hangul syllable needs nine.
const NORMALIZED_BYTES_MAX: usize = 12;

/// Characters that normalization keeps but may reorder when several follow one another: those that have a
/// combining class but are not nonspacing marks (Unicode 17, DerivedCombiningClass).
const REORDERABLE: [std::ops::RangeInclusive<char>; 4] = [
    '\u{302E}'..='\u{302F}',
    '\u{16FF0}'..='\u{16FF1}',
    '\u{1D165}'..='\u{1D166}',
    '\u{1D16D}'..='\u{1D172}',
];

/// The effect of tokenization on a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CharacterClass {
    /// Removed.
    Dropped,
    /// Ends a word.
    Whitespace,
    /// Part of a word.
    WordPart(NormalizedChars),
    /// A separate word.
    Standalone(NormalizedChars),
    /// None of these, or dependent on its neighbours.
    Unsupported,
}

/// The characters that normalization produces from one character, in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NormalizedChars {
    bytes: [u8; NORMALIZED_BYTES_MAX],
    len: u8,
    chars: u8,
}

impl NormalizedChars {
    fn new(text: &str) -> Option<NormalizedChars> {
        let mut bytes = [0; NORMALIZED_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(NormalizedChars { bytes, len: text.len() as u8, chars: text.chars().count() as u8 })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn chars(&self) -> usize {
        usize::from(self.chars)
    }
}

/// Maps every character to its class.
pub(super) struct CharacterTable {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    ascii: [CharacterClass; 128],
    blocks: Box<[OnceLock<Box<[CharacterClass; BLOCK_CHARS]>>]>,
}

impl CharacterTable {
    /// Returns `None` unless the normalizer and the pre-tokenizer are BERT's.
    pub(super) fn from_library(tokenizer: &tokenizers::Tokenizer) -> Option<CharacterTable> {
        let normalizer = tokenizer.get_normalizer()?;
        let pre_tokenizer = tokenizer.get_pre_tokenizer()?;
        if !matches!(normalizer, NormalizerWrapper::BertNormalizer(_))
            || !matches!(pre_tokenizer, PreTokenizerWrapper::BertPreTokenizer(_))
        {
            return None;
        }
        let mut characters = CharacterTable {
            normalizer: normalizer.clone(),
            pre_tokenizer: pre_tokenizer.clone(),
            ascii: [CharacterClass::Unsupported; 128],
            blocks: (0..=char::MAX as usize / BLOCK_CHARS).map(|_| OnceLock::new()).collect(),
        };
        characters.ascii = std::array::from_fn(|code| characters.classify(char::from(code as u8)));
        Some(characters)
    }

    /// The class of `character`.
    pub(super) fn get(&self, character: char) -> &CharacterClass {
        let code = character as usize;
        if let Some(found) = self.ascii.get(code) {
            return found;
        }
        let block = self.blocks[code / BLOCK_CHARS].get_or_init(|| {
            let first = code / BLOCK_CHARS * BLOCK_CHARS;
            let classify =
                |code| char::from_u32(code as u32).map_or(CharacterClass::Unsupported, |c| self.classify(c));
            Box::new(std::array::from_fn(|offset| classify(first + offset)))
        });
        &block[code % BLOCK_CHARS]
    }

    fn classify(&self, character: char) -> CharacterClass {
        if REORDERABLE.iter().any(|range| range.contains(&character)) {
            return CharacterClass::Unsupported;
        }
        self.try_classify(character).unwrap_or(CharacterClass::Unsupported)
    }

    fn try_classify(&self, character: char) -> Option<CharacterClass> {
        let mut normalized = NormalizedString::from(character.to_string());
        self.normalizer.normalize(&mut normalized).ok()?;
        let normalized_text = normalized.get();
        if normalized_text.is_empty() {
            return Some(CharacterClass::Dropped);
        }
        // Placed between two letters, the character either joins them, separates them or is a word itself.
        let between = format!("a{normalized_text}a");
        let mut split = PreTokenizedString::from(between.as_str());
        self.pre_tokenizer.pre_tokenize(&mut split).ok()?;
        let words = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        let words: Vec<&str> = words.into_iter().map(|(word, ..)| word).collect();
        match words[..] {
            ["a", "a"] => Some(CharacterClass::Whitespace),
            ["a", word, "a"] => NormalizedChars::new(word).map(CharacterClass::Standalone),
            [word] if word == between => NormalizedChars::new(normalized_text).map(CharacterClass::WordPart),
            _ => None,
        }
    }
}
