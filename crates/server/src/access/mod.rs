//! Access control, shared by all network interfaces: API keys with roles and collections, rate limits, lockout after
//! wrong keys, load shedding, and memory for unread responses.
//!
//! An interface maps each of its operations to an [`Action`] and asks here whether the caller may perform it. Nothing
//! here knows a protocol: keys are byte strings, addresses are IP addresses, and a [`Denial`] is translated into a
//! response by the interface.

mod action;
mod control;
mod grant;
mod key;
mod keys;
mod limits;
mod load_shedding;
mod response_budget;

pub use action::{Action, Scope};
pub use control::{AccessControl, AccessSettings};
pub use grant::{Denial, Grant};
pub use key::{AcceptedKey, ApiKey, Coverage, Role};
pub use keys::ApiKeys;
pub use limits::{CallerId, Network};
pub use load_shedding::LoadShedder;
pub use response_budget::{Reservation, ResponseBudget};
