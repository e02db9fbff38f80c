//! Standard error of a program that must outlive its reader.
//!
//! A command writes each message at once. A server calls [`enqueue`] first: from then on messages wait in a bounded
//! queue for a thread that writes them, so that no other thread waits for the reader of standard error or fails with it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::VecDeque,
    io::{self, Write},
    panic::PanicHookInfo,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use metrics::counter;

/// Bytes that wait to be written at most. Messages beyond that are lost.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// Bytes that a waiting message takes besides its text.
const MESSAGE_OVERHEAD: usize = 64;

/// Shortest time between two reports of lost messages while more of them wait.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before another attempt where standard error is nonblocking and its reader is slow.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a program that ends waits until its last messages are written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts messages that were not written.
const LOST: &str = "nearfield_log_messages_lost_total";

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Writes a message, or queues it after [`enqueue`]. Errors are ignored: there is no other place to report them.
pub(crate) fn write(message: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(message),
        None => {
            let _ = io::stderr().lock().write_all(message);
        }
    }
}

/// Queues all further messages, those of panics included.
pub(crate) fn enqueue() -> io::Result<()> {
    let queue = QUEUE.get_or_init(Queue::default);
    thread::Builder::new().name("nearfield-log".to_owned()).spawn(|| queue.write_to(io::stderr()))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Waits until all queued messages are written, up to a second.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// The writer of the log. It never fails.
#[derive(Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        write(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic. The standard hook writes to standard error, which may block.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let text = panic.payload_as_str().unwrap_or("a value that is not text");
    let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!("the thread {name} panicked{place}: {text}\n{backtrace}");
    } else {
        tracing::error!("the thread {name} panicked{place}: {text}");
    }
}

/// Messages that wait to be written.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    messages: VecDeque<Box<[u8]>>,
    /// Their size with [`MESSAGE_OVERHEAD`].
    bytes: usize,
    /// Whether a message is being written.
    is_writing: bool,
    /// Messages lost since the last report.
    lost: u64,
}

impl Queue {
    /// Appends a message, or counts it as lost if there is no room.
    fn push(&self, message: &[u8]) {
        let mut state = self.lock();
        let bytes = message.len() + MESSAGE_OVERHEAD;
        if state.bytes + bytes > QUEUE_BYTES_MAX {
            state.lost += 1;
            drop(state);
            counter!(LOST).increment(1);
            return;
        }
        state.bytes += bytes;
        state.messages.push_back(message.into());
        drop(state);
        self.changed.notify_all();
    }

    /// Writes messages for as long as the process lives, and reports lost ones as soon as something can be written.
    fn write_to(&self, mut out: impl Write) {
        let mut is_line_open = false;
        let mut reported = None::<Instant>;
        loop {
            let message = self.take();
            match write_message(&mut out, &message, &mut is_line_open) {
                Ok(()) => {
                    let mut state = self.lock();
                    let is_due = state.messages.is_empty()
                        || reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL);
                    let lost = if is_due { std::mem::take(&mut state.lost) } else { 0 };
                    drop(state);
                    if lost > 0 {
                        reported = Some(Instant::now());
                        tracing::warn!(lost, "log messages were lost because they could not be written");
                    }
                }
                Err(_) => {
                    self.lock().lost += 1;
                    counter!(LOST).increment(1);
                }
            }
        }
    }

    /// Waits for the next message.
    fn take(&self) -> Box<[u8]> {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(message) = state.messages.pop_front() {
                state.bytes -= message.len() + MESSAGE_OVERHEAD;
                state.is_writing = true;
                return message;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is written, up to `timeout`.
    fn flush(&self, timeout: Duration) {
        let is_pending = |state: &mut QueueState| state.is_writing || !state.messages.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, is_pending);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a message on a line of its own: `is_line_open` tells whether the last one was cut off within a line.
fn write_message(out: &mut impl Write, message: &[u8], is_line_open: &mut bool) -> io::Result<()> {
    if *is_line_open {
        write_all(out, b"\n").map_err(|(_, error)| error)?;
        *is_line_open = false;
    }
    write_all(out, message).map_err(|(written, error)| {
        *is_line_open = written > 0;
        error
    })
}

/// Writes all bytes. Fails with the number of bytes that were written.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// What the writer of a test does with each write.
    type Behaviour = Box<dyn FnMut(&[u8]) -> io::Result<usize> + Send>;

    struct TestOutput(Behaviour);

    impl Write for TestOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0)(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue(behaviour: impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let writing = queue.clone();
        thread::spawn(move || writing.write_to(TestOutput(Box::new(behaviour))));
        queue
    }

    #[test]
    fn a_reader_that_does_not_read_costs_messages_but_blocks_nobody() {
        let (release, released) = mpsc::channel::<()>();
        let (written, all) = mpsc::channel();
        let queue = queue(move |bytes| {
            let _ = released.recv();
            written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        });
        let line = vec![b'x'; 1000];
        for _ in 0..2000 {
            queue.push(&line);
        }
        let started = Instant::now();
        queue.flush(Duration::from_millis(20));
        assert!(started.elapsed() >= Duration::from_millis(20), "everything was written");
        let kept = QUEUE_BYTES_MAX / (line.len() + MESSAGE_OVERHEAD);
        let lost = queue.lock().lost as usize;
        // The one that is being written has left the queue.
        assert!(lost == 2000 - kept || lost == 2000 - kept - 1, "{lost}");
        drop(release);
        queue.flush(Duration::from_secs(60));
        assert_eq!(all.try_iter().count(), 2000 - lost);
        let state = queue.lock();
        assert_eq!((state.bytes, state.lost), (0, 0));
    }

    #[test]
    fn messages_that_fail_are_lost_and_the_next_begins_on_a_new_line() {
        let (written, all) = mpsc::channel();
        let mut space = vec![100, 0, 100];
        let queue = queue(move |bytes| {
            let room = space.last_mut().unwrap();
            if *room == 0 {
                space.pop();
                return Err(io::ErrorKind::StorageFull.into());
            }
            let amount = bytes.len().min(*room);
            *room -= amount;
            written.send(bytes[..amount].to_vec()).unwrap();
            Ok(amount)
        });
        // A hundred bytes, then no room for two attempts, then room again.
        for _ in 0..9 {
            queue.push(b"0123456789\n");
        }
        queue.push(b"abcdefghij\n");
        queue.push(b"lost\n");
        queue.push(b"kept\n");
        queue.flush(Duration::from_secs(60));
        let text = String::from_utf8(all.try_iter().flatten().collect()).unwrap();
        assert_eq!(text, "0123456789\n".repeat(9) + "a\nkept\n");
    }
}
