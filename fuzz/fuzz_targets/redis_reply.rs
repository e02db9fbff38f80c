//! Replies of a Redis: read, or refused in words.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| service::fuzzing::redis_reply(input));
