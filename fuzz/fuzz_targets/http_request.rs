//! Requests: any address, headers and body get an answer that is no fault of the program.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzzing::http_request(input));
