//! Redis replies: a reply is parsed, or rejected with a message.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| service::fuzzing::redis_reply(input));
