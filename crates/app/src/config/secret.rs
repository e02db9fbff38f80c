//! An API key, which is never shown.

use std::fmt;

/// Fewest bytes of a key: 128 bits, if it was drawn at random.
const KEY_BYTES_MIN: usize = 16;

/// Most bytes of a key: it has to fit a header.
const KEY_BYTES_MAX: usize = 1024;

/// A key that opens the HTTP door.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key of 16 to 1024 visible ASCII characters; `None` for anything else.
    pub fn new(key: impl Into<String>) -> Option<ApiKey> {
        let key = key.into();
        let fits = (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len());
        (fits && key.bytes().all(|byte| byte.is_ascii_graphic())).then_some(ApiKey(key))
    }

    /// The key itself, to be sent or digested.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(hidden)")
    }
}
