//! One module per sub-command.

pub(crate) mod cluster;
pub(crate) mod durability;
pub(crate) mod embed;
pub(crate) mod index;
pub(crate) mod load;
pub(crate) mod overload;
pub(crate) mod redis;
pub(crate) mod restart;
pub(crate) mod serve;
pub(crate) mod soak;
