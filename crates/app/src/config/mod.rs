//! Settings. Flags override environment variables, which override the configuration file, which overrides the defaults.
//!
//! `table` lists all settings: a new one is one entry there. No other code reads the environment or the file.

mod assignments;
mod builder;
mod collection_keys;
mod error;
mod file;
mod flags;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod load;
mod setting;
mod settings;
mod store_url;
mod table;
mod value;

pub use error::ConfigError;
pub use flags::{CommonSettings, Flags, ServeFlags, ServerOnlySettings};
pub use load::FILE_NAME;
pub use server::access::{AcceptedKey, ApiKey, Coverage, Role};
pub use server::http::Origin;
pub use settings::Settings;
pub use store_url::StoreUrl;
pub(crate) use table::LOG_ALLOWED;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod tests;
