//! CSV files: every row is either parsed or rejected.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nearfield::fuzzing::csv_rows(input));
