//! Text to token ids.
//!
//! The `tokenizers` library parses the tokenizer file and defines the expected result. BERT
//! vocabularies use a faster tokenizer of this crate, and the library for the few texts that it does not support.

mod characters;
#[cfg(any(fuzzing, test))]
pub(crate) mod small_tokenizer;
mod trie;
mod wordpiece;

use std::path::Path;

use tokenizers::{PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy};

use self::wordpiece::WordPiece;
use crate::{LoadError, Tokens};

/// Characters that hardly any vocabulary contains: cuneiform, Linear A and a hieroglyph.
const UNKNOWN_CHARACTERS: &str = "\u{12000} \u{10600} \u{13000}";

/// Size of the part of a long text that is tokenized first, in bytes per token of the model's maximum
/// length. Prose in any script has far fewer bytes per token.
const HEAD_BYTES_PER_TOKEN: usize = 16;

/// The model's tokenizer. It truncates to the model's maximum length and does not pad, regardless of the
/// settings in its file.
pub(crate) struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    /// `None` if the vocabulary or its settings are not BERT's.
    wordpiece: Option<WordPiece>,
    pub(crate) tokens_max: usize,
    lowercase: bool,
}

impl Tokenizer {
    /// Parses `bytes`, the content of the tokenizer.json at `path`, for a model with embeddings for
    /// `vocabulary` ids.
    pub(crate) fn parse(
        path: &Path,
        bytes: &[u8],
        tokens_max: usize,
        lowercase: bool,
        vocabulary: usize,
    ) -> Result<Tokenizer, LoadError> {
        let invalid = |source| LoadError::Tokenizer { path: path.into(), source };
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(invalid)?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= vocabulary {
            return Err(LoadError::Vocabulary { path: path.into(), id: largest, vocabulary });
        }
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if special >= tokens_max {
            let message = format!(
                "it adds {special} special tokens to every text, which leaves no space for words within the \
                 model's maximum of {tokens_max} tokens"
            );
            return Err(invalid(message.into()));
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(invalid)?;
        // Lowercasing a whole text can differ from lowercasing its characters one by one (for example a
        // Greek sigma at the end of a word), so this case is left to the library.
        let wordpiece = if lowercase { None } else { WordPiece::from_library(&tokenizer) };
        let truncation = TruncationParams {
            // The library stops at this many tokens. With special tokens it reports overflow. Without
            // them, one additional token is needed to detect it.
            max_length: if special == 0 { tokens_max + 1 } else { tokens_max },
            direction: TruncationDirection::Right,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        tokenizer.with_truncation(Some(truncation)).map_err(invalid)?;
        // Without an unknown token, encoding fails at the first unknown character. This detects such
        // a vocabulary at load rather than during a search.
        tokenizer.encode_fast(UNKNOWN_CHARACTERS, true).map_err(invalid)?;
        Ok(Tokenizer { tokenizer, wordpiece, tokens_max, lowercase })
    }

    /// Tokenizes `text` with special tokens, truncated to the model's maximum length.
    pub(crate) fn tokenize(&self, text: &str) -> Tokens {
        let tokens = self.wordpiece.as_ref().and_then(|wordpiece| wordpiece.tokenize(text, self.tokens_max));
        tokens.unwrap_or_else(|| self.tokenize_with_library(text))
    }

    fn tokenize_with_library(&self, text: &str) -> Tokens {
        // The library normalizes the whole text before truncating it. The first words of a long text
        // are nearly always sufficient. Since they are complete words, their tokens are a prefix of the
        // tokens of the whole text.
        if let Some(head) = whole_words_within(text, self.tokens_max.saturating_mul(HEAD_BYTES_PER_TOKEN)) {
            let tokens = self.encode(head);
            if tokens.truncated {
                return tokens;
            }
        }
        self.encode(text)
    }

    fn encode(&self, text: &str) -> Tokens {
        let encoding = if self.lowercase {
            self.tokenizer.encode_fast(text.to_lowercase(), true)
        } else {
            self.tokenizer.encode_fast(text, true)
        };
        let encoding = encoding.expect("a tokenizer with an unknown token encodes every text");
        let mut ids = encoding.get_ids().to_vec();
        let truncated = ids.len() > self.tokens_max || !encoding.get_overflowing().is_empty();
        ids.truncate(self.tokens_max);
        Tokens { ids, truncated }
    }
}

/// The words that are completely within the first `bytes` of a longer text, if there are any.
fn whole_words_within(text: &str, bytes: usize) -> Option<&str> {
    if text.len() <= bytes {
        return None;
    }
    let head = &text[..text.floor_char_boundary(bytes)];
    Some(&head[..head.rfind(char::is_whitespace)?])
}

#[cfg(test)]
mod tests;
