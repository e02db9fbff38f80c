//! SIGTERM and SIGINT: the first asks, the second insists.

use std::io;

use tokio_util::sync::CancellationToken;

/// Exit code of a process that a second signal ended, as shells count it for SIGINT.
const INSISTED: i32 = 130;

/// Fires at the first signal. A second one ends the process, whatever it is at: it is listened for on a thread of its
/// own, which outlives the server's runtime.
pub(super) fn stop() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let listen = async move {
        signals.next().await;
        tracing::info!("stopping; a second signal ends the process at once");
        asked.cancel();
        signals.next().await;
        std::process::exit(INSISTED);
    };
    let thread = std::thread::Builder::new().name("nearfield-signals".to_owned());
    thread.spawn(move || runtime.block_on(listen))?;
    Ok(stop)
}

/// Has a file that may not grow (a limit of the process) be an error of the write, not the end of the process.
#[cfg(target_os = "linux")]
pub(super) fn outlive_file_limit() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    /// The same on every architecture but MIPS.
    const SIGXFSZ: i32 = 25;
    // Once listened for, it is never again what ends the process.
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// Elsewhere it has another number.
#[cfg(not(target_os = "linux"))]
pub(super) fn outlive_file_limit() -> io::Result<()> {
    Ok(())
}

/// Does `reload` at every SIGHUP.
#[cfg(unix)]
pub(super) fn on_reload(reload: impl Fn() + Send + 'static) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
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
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on; within a runtime.
    pub(crate) fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// The signal that asks a process to stop.
#[cfg(windows)]
pub(crate) struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    /// Listens from now on; within a runtime.
    pub(crate) fn new() -> io::Result<Signals> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
