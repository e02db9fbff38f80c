//! Ctrl-C and the polite signals to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context as _;

use server::serve::signals;

/// Whether the process was on_signal to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. The first signal sets the flag and runs `stop`; the second ends the
    /// process at once.
    pub(crate) fn listen(stop: impl FnOnce() + Send + 'static) -> anyhow::Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt(flag.clone());
        let on_signal = move || {
            flag.store(true, Relaxed);
            stop();
        };
        signals::listen(on_signal).context("starting to listen for Ctrl-C")?;
        Ok(interrupt)
    }

    /// Whether a signal came.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// The flag itself.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
