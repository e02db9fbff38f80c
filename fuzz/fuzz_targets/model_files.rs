//! Model files: the model loads and embeds a text, or the error names a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| embed::fuzzing::model_files(input));
