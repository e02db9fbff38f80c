//! WordPiece for BERT's vocabularies (Wu et al. 2016, section 4.1; longest piece first, as in
//! Devlin et al. 2019). It gives the same ids as the library in a thirtieth of the time, which matters
//! because tokenization is part of the latency of a query.

use tokenizers::ModelWrapper;

use super::characters::{CharacterClass, CharacterTable};
use super::trie::{Node, Trie};
use crate::Tokens;

/// A text for determining the special tokens before and after the ids of the words.
const SAMPLE_TEXT: &str = "a";

/// A WordPiece tokenizer with BERT's normalizer and pre-tokenizer.
pub(super) struct WordPiece {
    characters: CharacterTable,
    trie: Trie,
    /// The node from which continuation pieces (`##`) start, if there are any.
    continuation: Option<Node>,
    unknown: u32,
    word_chars_max: usize,
    /// Special tokens before the ids of the words.
    prefix: Vec<u32>,
    /// Special tokens after the ids of the words.
    suffix: Vec<u32>,
    /// Added tokens, which the library extracts from a text before normalization.
    added_tokens: Vec<String>,
    /// The first bytes of the added tokens.
    added_token_starts: [bool; 256],
}

impl WordPiece {
    /// Converts the library's tokenizer, or returns `None` if it is not BERT's. `tokenizer` must neither
    /// truncate nor pad.
    pub(super) fn from_library(tokenizer: &tokenizers::Tokenizer) -> Option<WordPiece> {
        let characters = CharacterTable::from_library(tokenizer)?;
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else { return None };
        let vocabulary = tokenizer.get_vocab(false);
        let unknown = *vocabulary.get(&model.unk_token)?;

        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let mut added_tokens = Vec::with_capacity(added.len());
        let mut added_token_starts = [false; 256];
        for token in added.values() {
            // A token that is matched in the normalized text can be written in many ways.
            if token.normalized {
                return None;
            }
            added_token_starts[usize::from(*token.content.as_bytes().first()?)] = true;
            added_tokens.push(token.content.clone());
        }

        let sample = tokenizer.encode_fast(SAMPLE_TEXT, true).ok()?;
        let word = tokenizer.encode_fast(SAMPLE_TEXT, false).ok()?;
        let (sample, word) = (sample.get_ids(), word.get_ids());
        let position = sample.windows(word.len().max(1)).position(|ids| ids == word)?;
        let (prefix, suffix) = (sample[..position].to_vec(), sample[position + word.len()..].to_vec());

        let trie = Trie::new(vocabulary);
        Some(WordPiece {
            continuation: trie.descend(model.continuing_subword_prefix.as_bytes()),
            trie,
            characters,
            unknown,
            word_chars_max: model.max_input_chars_per_word,
            prefix,
            suffix,
            added_tokens,
            added_token_starts,
        })
    }

    /// Tokenizes `text`, truncated to `tokens_max` ids. Returns `None` if only the library supports the
    /// text.
    pub(super) fn tokenize(&self, text: &str, tokens_max: usize) -> Option<Tokens> {
        if self.contains_added_token(text) {
            return None;
        }
        let ids_max = tokens_max - self.suffix.len();
        let mut ids = Vec::with_capacity((text.len() / 3 + 4).min(tokens_max));
        ids.extend_from_slice(&self.prefix);
        let mut word = PendingWord::default();
        for character in text.chars() {
            match self.characters.get(character) {
                CharacterClass::WordPart(letters) => {
                    word.bytes.extend_from_slice(letters.bytes());
                    word.chars += letters.chars();
                    continue;
                }
                CharacterClass::Dropped => continue,
                CharacterClass::Whitespace => self.end_word(&mut word, &mut ids),
                CharacterClass::Standalone(letters) => {
                    self.end_word(&mut word, &mut ids);
                    word.bytes.extend_from_slice(letters.bytes());
                    word.chars = letters.chars();
                    self.end_word(&mut word, &mut ids);
                }
                CharacterClass::Unsupported => return None,
            }
            if ids.len() > ids_max {
                break;
            }
        }
        self.end_word(&mut word, &mut ids);
        let truncated = ids.len() > ids_max;
        ids.truncate(ids_max);
        ids.extend_from_slice(&self.suffix);
        Some(Tokens { ids, truncated })
    }

    fn contains_added_token(&self, text: &str) -> bool {
        text.bytes().any(|byte| self.added_token_starts[usize::from(byte)])
            && self.added_tokens.iter().any(|token| text.contains(token))
    }

    /// Appends the pieces of a word and clears it.
    fn end_word(&self, word: &mut PendingWord, ids: &mut Vec<u32>) {
        let mut rest = &word.bytes[..];
        let start = ids.len();
        let mut node = Some(Trie::ROOT);
        while !rest.is_empty() {
            let piece = node.and_then(|node| self.trie.longest(node, rest));
            let Some((len, id)) = piece.filter(|_| word.chars <= self.word_chars_max) else {
                // A word with an unknown part becomes a single unknown token.
                ids.truncate(start);
                ids.push(self.unknown);
                break;
            };
            ids.push(id);
            rest = &rest[len..];
            node = self.continuation;
        }
        word.bytes.clear();
        word.chars = 0;
    }
}

/// The word that is being read.
#[derive(Default)]
struct PendingWord {
    bytes: Vec<u8>,
    chars: usize,
}
