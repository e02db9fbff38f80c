//! Text to token ids.
//!
//! The `tokenizers` library reads the file, and is the measure of what is right. Vocabularies of
//! BERT's kind get a tokenizer of our own, which hands the few texts it does not cover to the library.

mod characters;
#[cfg(any(fuzzing, test))]
pub(crate) mod small;
mod trie;
mod wordpiece;

use std::path::Path;

use tokenizers::{PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy};

use self::wordpiece::WordPiece;
use crate::{LoadError, Tokens};

/// Letters that hardly any vocabulary has: cuneiform, Linear A and a hieroglyph.
const PROBE: &str = "\u{12000} \u{10600} \u{13000}";

/// How much of a long text is tokenized first, for each token the model reads: prose in any script
/// has far fewer bytes a token.
const HEAD_BYTES_PER_TOKEN: usize = 16;

/// The model's tokenizer, with the truncation of the model and no padding, whatever its file says.
pub(crate) struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    /// `None` where the library is not of BERT's kind.
    wordpiece: Option<WordPiece>,
    pub(crate) tokens_max: usize,
    lowercase: bool,
}

impl Tokenizer {
    /// Parses tokenizer.json, `bytes` of the file at `path`, for a model with embeddings for
    /// `vocabulary` ids.
    pub(crate) fn parse(
        path: &Path,
        bytes: &[u8],
        tokens_max: usize,
        lowercase: bool,
        vocabulary: usize,
    ) -> Result<Tokenizer, LoadError> {
        let refused = |source| LoadError::Tokenizer { path: path.into(), source };
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(refused)?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= vocabulary {
            return Err(LoadError::Vocabulary { path: path.into(), id: largest, vocabulary });
        }
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if special >= tokens_max {
            let message = format!(
                "it adds {special} special tokens to a text, which leaves no room for words in the \
                 {tokens_max} that the model reads"
            );
            return Err(refused(message.into()));
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(refused)?;
        // A text that is written in small letters as a whole may come out different from one whose
        // letters are (a Greek sigma at the end of a word), so the library has to do it.
        let wordpiece = if lowercase { None } else { WordPiece::of(&tokenizer) };
        let truncation = TruncationParams {
            // The library stops at this many tokens without looking for more. Special tokens make
            // room to see that there were more; without them one token is added for that.
            max_length: if special == 0 { tokens_max + 1 } else { tokens_max },
            direction: TruncationDirection::Right,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        tokenizer.with_truncation(Some(truncation)).map_err(refused)?;
        // Vocabularies without a token for the unknown fail on their first unknown character:
        // better now than in the middle of a search.
        tokenizer.encode_fast(PROBE, true).map_err(refused)?;
        Ok(Tokenizer { tokenizer, wordpiece, tokens_max, lowercase })
    }

    /// Tokenizes `text`, with special tokens, cut at the model's length.
    pub(crate) fn tokenize(&self, text: &str) -> Tokens {
        let own = self.wordpiece.as_ref().and_then(|own| own.tokenize(text, self.tokens_max));
        own.unwrap_or_else(|| self.by_library(text))
    }

    fn by_library(&self, text: &str) -> Tokens {
        // The library normalises a text to its end before it cuts. Of a long one the words of the
        // head are nearly always enough; they are complete, so they give the tokens that the whole
        // text begins with.
        if let Some(head) = words_within(text, self.tokens_max.saturating_mul(HEAD_BYTES_PER_TOKEN)) {
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
        let encoding = encoding.expect("a tokenizer that knows the unknown character knows every text");
        let mut ids = encoding.get_ids().to_vec();
        let truncated = ids.len() > self.tokens_max || !encoding.get_overflowing().is_empty();
        ids.truncate(self.tokens_max);
        Tokens { ids, truncated }
    }
}

/// The words that lie wholly in the first `bytes` of a longer text, if there are any.
fn words_within(text: &str, bytes: usize) -> Option<&str> {
    if text.len() <= bytes {
        return None;
    }
    let head = &text[..text.floor_char_boundary(bytes)];
    Some(&head[..head.rfind(char::is_whitespace)?])
}

#[cfg(test)]
mod tests;
