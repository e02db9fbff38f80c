//! The program `nearfield`.

use std::process::ExitCode;

/// Searches and batches allocate many small blocks on every thread. mimalloc's per-thread heaps avoid the lock
/// contention of the system allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nearfield::cli::run()
}
