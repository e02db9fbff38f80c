//! SIGTERM and SIGINT: the first asks, the second insists.

use std::io;

use tokio_util::sync::CancellationToken;

/// Exit code of a process that signals ended, as shells count it for SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Fires at the first signal. A second one ends the process.
pub(super) fn stop_token() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let on_first = stop.clone();
    listen(move || {
        tracing::info!("stopping; a second signal ends the process at once");
        on_first.cancel();
    })?;
    Ok(stop)
}

/// Listens from now on: does `asked` at the first signal, and ends the process at the second, whatever it is at. On a
/// thread of its own, which no other runtime's end takes along.
pub fn listen(on_first: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let listen = async move {
        signals.next().await;
        on_first();
        signals.next().await;
        std::process::exit(INTERRUPTED.into());
    };
    let thread = std::thread::Builder::new().name("nearfield-signals".to_owned());
    thread.spawn(move || runtime.block_on(listen)).map(drop)
}

/// Has a file that may not grow (a limit of the process) be an error of the write, not the end of the process.
#[cfg(target_os = "linux")]
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    /// The same on every architecture but MIPS.
    const SIGXFSZ: i32 = 25;
    // Once listened for, it is never again what ends the process.
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// Elsewhere it has another number.
#[cfg(not(target_os = "linux"))]
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    Ok(())
}

/// Does `reload` at every SIGHUP.
#[cfg(unix)]
pub(super) fn on_reload(reload: impl Fn() + Send + 'static) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut on_first = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while on_first.recv().await.is_some() {
            reload();
        }
    });
    Ok(())
}

/// Elsewhere no such signal comes.
#[cfg(not(unix))]
pub(super) fn on_reload(_reload: impl Fn() + Send + 'static) -> io::Result<()> {
    Ok(())
}

/// The signals that ask a process to stop, whichever comes.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on; within a runtime.
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

/// The signal that asks a process to stop.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    /// Listens from now on; within a runtime.
    fn new() -> io::Result<Signals> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        self.0.recv().await;
    }
}
