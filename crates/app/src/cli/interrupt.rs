//! Ctrl-C and termination signals.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context as _;

use server::serve::signals;

/// Whether the process was asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Starts listening. The first signal sets the flag and runs `stop`; the second ends the process immediately.
    pub(crate) fn listen(stop: impl FnOnce() + Send + 'static) -> anyhow::Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt(flag.clone());
        let on_signal = move || {
            flag.store(true, Relaxed);
            stop();
        };
        signals::listen(on_signal).context("installing the signal handlers")?;
        Ok(interrupt)
    }

    /// Whether a signal has arrived.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// The flag, for code that polls it.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
