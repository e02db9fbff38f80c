//! Backups: a backup that verifies can be restored, and backing up the result gives the same counts.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| store::fuzzing::backup_file(input));
