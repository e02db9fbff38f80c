//! Texts: our tokenizer gives the same result as the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| embed::fuzzing::tokenizer_text(input));
