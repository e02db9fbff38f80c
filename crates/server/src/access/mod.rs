//! Who may use a server: API keys with their roles and collections, and origins of web pages.

mod key;
mod origin;

pub use key::{ApiKey, KnownKey, Role};
pub use origin::Origin;
