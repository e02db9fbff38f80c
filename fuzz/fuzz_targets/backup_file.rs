//! Backups: any bytes are read to an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = engine::Backup::verify(bytes);
});
