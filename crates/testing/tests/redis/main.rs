//! Tests of the Redis servers and clusters that other tests use, and of how they are deployed.

mod clusters;
mod compose;
mod servers;
