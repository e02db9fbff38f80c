//! Settings: values are within their limits, or are rejected without revealing secrets.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nearfield::fuzzing::config_toml(input));
