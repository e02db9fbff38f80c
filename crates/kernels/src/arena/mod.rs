//! Shared memory for structures that are read while they grow.
