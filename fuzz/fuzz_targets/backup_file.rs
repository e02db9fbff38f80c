//! Backups: what is verified can be restored and is the same when backed up again.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| store::fuzzing::backup_file(input));
