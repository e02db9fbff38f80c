//! Filters: a parsed filter is printed as text that parses to the same filter.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::filter_parse(input));
