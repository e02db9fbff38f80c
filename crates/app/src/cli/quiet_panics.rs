//! Panics that are findings.

use std::panic;

/// Stops printing panics of redb, which panics on some damaged files. The store catches them and reports them as damage,
/// so `check` and `repair` describe them in their own words.
pub(super) fn silence_redb_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        let is_in_redb = panicked.location().is_some_and(|location| location.file().contains("/redb-"));
        if !is_in_redb {
            print(panicked);
        }
    }));
}
