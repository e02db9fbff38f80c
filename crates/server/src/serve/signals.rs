//! SIGTERM and SIGINT: the first stops gracefully, the second ends the process. SIGHUP reloads.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::supervisor::Supervisor;

/// Exit code of a process ended by SIGINT, by the convention of shells.
pub const INTERRUPTED: u8 = 130;

/// A token that the first signal cancels. A second signal ends the process.
pub(super) fn stop_token() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let on_first = stop.clone();
    listen(move || {
        on_first.cancel();
        tracing::info!("stopping; a second signal ends the process at once");
    })?;
    Ok(stop)
}

/// Calls `on_first` at the first signal and ends the process at the second. Uses its own thread and runtime, so that it
/// works until the process ends.
pub fn listen(on_first: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let listen = async move {
        signals.next().await;
        // Whatever it does, the second signal ends the process.
        let _ = catch_unwind(AssertUnwindSafe(on_first));
        signals.next().await;
    };
    let thread = std::thread::Builder::new().name("nearfield-signals".to_owned());
    let run = move || {
        // A process that does not listen to signals could not be stopped.
        let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(listen)));
        std::process::exit(INTERRUPTED.into());
    };
    thread.spawn(run).map(drop)
}

/// Ignores SIGXFSZ, so that exceeding the file size limit of the process fails the write instead of ending the process.
#[cfg(target_os = "linux")]
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    /// The same on all architectures except MIPS.
    const SIGXFSZ: i32 = 25;
    // A handler replaces the default action for the rest of the process.
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// Other systems: the signal has another number.
#[cfg(not(target_os = "linux"))]
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    Ok(())
}

/// Calls `reload`, which may block, at every SIGHUP.
#[cfg(unix)]
pub(super) fn on_reload(
    supervisor: &Supervisor,
    reload: impl Fn() + Send + Sync + 'static,
) -> io::Result<()> {
    use tokio::{
        signal::unix::{SignalKind, signal},
        sync::Mutex,
    };
    let hangups = Arc::new(Mutex::new(signal(SignalKind::hangup())?));
    let reload = Arc::new(reload);
    supervisor.spawn("reload", move || {
        let (hangups, reload) = (hangups.clone(), reload.clone());
        async move {
            let mut hangups = hangups.lock().await;
            while hangups.recv().await.is_some() {
                let reload = reload.clone();
                // A panic is logged, and the next signal reloads again.
                let _ = tokio::task::spawn_blocking(move || reload()).await;
            }
        }
    });
    Ok(())
}

/// Other systems have no such signal.
#[cfg(not(unix))]
pub(super) fn on_reload(
    _supervisor: &Supervisor,
    _reload: impl Fn() + Send + Sync + 'static,
) -> io::Result<()> {
    Ok(())
}

/// The signals that stop the process.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on. Call it within a runtime.
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// The signal that stops the process.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    /// Listens from now on. Call it within a runtime.
    fn new() -> io::Result<Signals> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        self.0.recv().await;
    }
}
