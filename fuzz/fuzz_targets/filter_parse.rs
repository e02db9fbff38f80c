//! Filters: what parses is printed as something that parses to the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::filter_parse(input));
