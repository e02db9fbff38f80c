//! What BERT's normaliser and pre-tokenizer make of each character.
//!
//! Both look at one character at a time, so what they make of all of them can be asked of the
//! library once and looked up from then on; asked when first met, 256 neighbours at a time.

use std::sync::OnceLock;

use tokenizers::{
    NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper,
};

/// Characters asked about at a time.
const BLOCK: usize = 256;

/// Bytes that a character becomes at most, to be looked up: a Hangul syllable has nine.
const LETTERS_MAX: usize = 12;

/// Characters that stay and that decomposition may put in another order when several follow one
/// another: those with a combining class that are no nonspacing marks (Unicode 17, DerivedCombiningClass).
const REORDERED: [std::ops::RangeInclusive<char>; 4] = [
    '\u{302E}'..='\u{302F}',
    '\u{16FF0}'..='\u{16FF1}',
    '\u{1D165}'..='\u{1D166}',
    '\u{1D16D}'..='\u{1D172}',
];

/// What a character becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Character {
    /// Nothing.
    Dropped,
    /// The end of a word.
    Space,
    /// Part of a word.
    Letters(Letters),
    /// A word of its own.
    Alone(Letters),
    /// Something that depends on its neighbours, or none of these.
    Unclear,
}

/// A few characters in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letters {
    bytes: [u8; LETTERS_MAX],
    len: u8,
    chars: u8,
}

impl Letters {
    fn new(text: &str) -> Option<Letters> {
        let mut bytes = [0; LETTERS_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Letters { bytes, len: text.len() as u8, chars: text.chars().count() as u8 })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn chars(&self) -> usize {
        usize::from(self.chars)
    }
}

/// What every character becomes.
pub(super) struct Characters {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    ascii: [Character; 128],
    blocks: Box<[OnceLock<Box<[Character; BLOCK]>>]>,
}

impl Characters {
    /// `None` unless normaliser and pre-tokenizer are BERT's.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Characters> {
        let normalizer = tokenizer.get_normalizer()?;
        let pre_tokenizer = tokenizer.get_pre_tokenizer()?;
        if !matches!(normalizer, NormalizerWrapper::BertNormalizer(_))
            || !matches!(pre_tokenizer, PreTokenizerWrapper::BertPreTokenizer(_))
        {
            return None;
        }
        let mut characters = Characters {
            normalizer: normalizer.clone(),
            pre_tokenizer: pre_tokenizer.clone(),
            ascii: [Character::Unclear; 128],
            blocks: (0..=char::MAX as usize / BLOCK).map(|_| OnceLock::new()).collect(),
        };
        characters.ascii = std::array::from_fn(|code| characters.ask(char::from(code as u8)));
        Some(characters)
    }

    /// What `character` becomes.
    pub(super) fn get(&self, character: char) -> &Character {
        let code = character as usize;
        if let Some(found) = self.ascii.get(code) {
            return found;
        }
        let block = self.blocks[code / BLOCK].get_or_init(|| {
            let first = code / BLOCK * BLOCK;
            let ask = |code| char::from_u32(code as u32).map_or(Character::Unclear, |c| self.ask(c));
            Box::new(std::array::from_fn(|place| ask(first + place)))
        });
        &block[code % BLOCK]
    }

    fn ask(&self, character: char) -> Character {
        if REORDERED.iter().any(|range| range.contains(&character)) {
            return Character::Unclear;
        }
        self.asked(character).unwrap_or(Character::Unclear)
    }

    fn asked(&self, character: char) -> Option<Character> {
        let mut normalized = NormalizedString::from(character.to_string());
        self.normalizer.normalize(&mut normalized).ok()?;
        let letters = normalized.get();
        if letters.is_empty() {
            return Some(Character::Dropped);
        }
        // Between two letters it shows whether it joins words, parts them, or stands between.
        let between = format!("a{letters}a");
        let mut split = PreTokenizedString::from(between.as_str());
        self.pre_tokenizer.pre_tokenize(&mut split).ok()?;
        let words = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        let words: Vec<&str> = words.into_iter().map(|(word, ..)| word).collect();
        match words[..] {
            ["a", "a"] => Some(Character::Space),
            ["a", alone, "a"] => Letters::new(alone).map(Character::Alone),
            [word] if word == between => Letters::new(letters).map(Character::Letters),
            _ => None,
        }
    }
}
