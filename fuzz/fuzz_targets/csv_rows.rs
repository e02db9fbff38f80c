//! CSV files: rows in are rows to send and rows rejected.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nearfield::fuzzing::csv_rows(input));
