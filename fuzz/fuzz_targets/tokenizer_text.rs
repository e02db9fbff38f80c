//! Texts: our tokenizer makes of them what the library makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| embed::fuzzing::tokenizer_text(input));
