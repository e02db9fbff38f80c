//! The program `nearfield`.

use std::process::ExitCode;

/// Searches and batches allocate and free small pieces on every thread at once; mimalloc's
/// per-thread heaps keep them from waiting for each other, which the system's allocator does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nearfield::cli::run()
}
