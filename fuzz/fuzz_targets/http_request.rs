//! HTTP requests: no path, header or body causes an internal error.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzzing::http_request(input));
