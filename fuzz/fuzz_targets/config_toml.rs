//! Settings: within their limits, or refused without showing a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nearfield::fuzzing::config_toml(input));
