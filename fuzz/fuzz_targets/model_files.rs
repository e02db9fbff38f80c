//! Files of a model: it loads and embeds, or is refused by the name of a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| embed::fuzzing::model_files(input));
