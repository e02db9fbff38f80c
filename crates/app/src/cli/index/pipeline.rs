//! Reads and sends concurrently: while two batches are being embedded and committed, the next is read.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, mpsc},
    thread,
};

use anyhow::Context as _;

use super::{
    batch::{Batch, BatchOptions, BatchReader},
    outcomes::{OutcomeRecorder, RowCounts},
    progress::Progress,
    row::RowReader,
    sender::{BatchOutcome, BatchSender},
};
use crate::cli::{client::Client, interrupt::Interrupt, terminal::Terminal};

/// Requests in flight: one is embedded while the other is committed.
const IN_FLIGHT_MAX: usize = 2;

/// An indexing run.
pub(crate) struct IndexJob<'a> {
    pub(crate) client: Arc<Client>,
    pub(crate) collection: &'a str,
    pub(crate) options: BatchOptions,
    /// Size of all inputs, if known.
    pub(crate) bytes: Option<u64>,
    pub(crate) recorder: OutcomeRecorder,
    pub(crate) terminal: Terminal,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct IndexOutcome {
    pub(crate) counts: RowCounts,
    pub(crate) seconds: f64,
    /// Whether Ctrl-C ended it.
    pub(crate) interrupted: bool,
    /// Why it stopped before the end of the input.
    pub(crate) failure: Option<anyhow::Error>,
}

enum Event {
    Read(Batch),
    End(anyhow::Result<()>),
    Sent(Batch, thread::Result<BatchOutcome>),
    Interrupted,
}

/// Sends all rows. Rows with the same id are committed in the order they are read.
pub(crate) fn run<R: RowReader + 'static>(job: IndexJob<'_>, rows: R) -> anyhow::Result<IndexOutcome> {
    let (events, received) = mpsc::channel();
    let interrupts = events.clone();
    let interrupt = Interrupt::listen(move || {
        // The receiver is gone if the run has ended.
        let _ = interrupts.send(Event::Interrupted);
    })?;
    // The reader stays one batch ahead: it waits for a permit after each batch.
    let (permits, permits_received) = mpsc::channel();
    read_ahead(BatchReader::new(rows, job.options), events.clone(), permits_received)?;

    let IndexJob { client, collection, options, bytes, mut recorder, terminal } = job;
    let mut progress = Progress::begin(bytes, terminal);
    let mut waiting: Option<Batch> = None;
    let mut in_flight: Vec<InFlight> = Vec::new();
    let mut reading = true;
    let mut failure: Option<anyhow::Error> = None;
    loop {
        let stopping = failure.is_some()
            || interrupt.is_set()
            || (options.stop_at_rejected && recorder.counts.rejected > 0);
        if stopping {
            (waiting, reading) = (None, false);
        }
        if let Some(batch) = waiting.take_if(|batch| can_send(&batch.ids, &in_flight)) {
            in_flight.push(InFlight { number: batch.number, ids: batch.ids.clone() });
            send(&client, collection, terminal, &interrupt, batch, events.clone())?;
            // The reader may have ended and then needs no permit.
            let _ = permits.send(());
            continue;
        }
        if in_flight.is_empty() && waiting.is_none() && !reading {
            break;
        }
        match received.recv().expect("this function holds a sender") {
            Event::Read(batch) => waiting = Some(batch),
            Event::End(ended) => {
                reading = false;
                failure = failure.or(ended.err());
            }
            Event::Interrupted => {
                progress.suspend(|| terminal.note("interrupted: finishing the requests in flight"))
            }
            Event::Sent(mut batch, outcome) => {
                let mut outcome = outcome.unwrap_or_else(|panic| resume_unwind(panic));
                in_flight.retain(|other| other.number != batch.number);
                outcome.rejected.append(&mut batch.rejected);
                outcome.rejected.sort_by_key(|rejected| rejected.location.line);
                let recorded = progress.suspend(|| recorder.record(&outcome));
                failure = failure.or(outcome.failure).or(recorded.err());
                progress.show(&recorder.counts, batch.bytes_read);
            }
        }
    }
    let closed = recorder.close();
    let seconds = progress.end();
    failure = failure.or(closed.err());
    Ok(IndexOutcome { counts: recorder.counts, seconds, interrupted: interrupt.is_set(), failure })
}

/// A batch that is being sent.
struct InFlight {
    number: u64,
    ids: HashSet<String>,
}

/// Whether a batch can be sent now: a slot is free, and no batch in flight has an earlier version of one of its
/// documents, which might be committed later.
fn can_send(ids: &HashSet<String>, in_flight: &[InFlight]) -> bool {
    in_flight.len() < IN_FLIGHT_MAX && in_flight.iter().all(|other| ids.is_disjoint(&other.ids))
}

/// Reads batches on a separate thread. The thread is never joined: it may block on standard input.
fn read_ahead<R: RowReader + 'static>(
    mut batches: BatchReader<R>,
    events: mpsc::Sender<Event>,
    permits: mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let read = move || {
        loop {
            match batches.next() {
                Ok(Some(batch)) => {
                    if events.send(Event::Read(batch)).is_err() || permits.recv().is_err() {
                        return;
                    }
                }
                Ok(None) => return drop(events.send(Event::End(Ok(())))),
                Err(error) => return drop(events.send(Event::End(Err(error)))),
            }
        }
    };
    thread::Builder::new()
        .name("nearfield-read".to_owned())
        .spawn(read)
        .context("starting the reader thread")?;
    Ok(())
}

/// Sends a batch from a separate thread.
fn send(
    client: &Arc<Client>,
    collection: &str,
    terminal: Terminal,
    interrupt: &Interrupt,
    mut batch: Batch,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let (client, collection, interrupt) = (client.clone(), collection.to_owned(), interrupt.clone());
    let work = move || {
        let rows = std::mem::take(&mut batch.rows);
        let sender =
            BatchSender { client: &client, collection: &collection, terminal, interrupted: interrupt.flag() };
        let outcome = catch_unwind(AssertUnwindSafe(|| sender.send(rows)));
        drop(client);
        // The receiver is gone if the run has ended.
        let _ = events.send(Event::Sent(batch, outcome));
    };
    thread::Builder::new()
        .name("nearfield-send".to_owned())
        .spawn(work)
        .context("starting a sender thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_with_a_common_document_are_not_sent_concurrently() {
        let ids = |ids: &str| ids.chars().map(String::from).collect::<HashSet<String>>();
        let batch = ids("abc");
        let other = |number, text| InFlight { number, ids: ids(text) };
        assert!(can_send(&batch, &[]));
        assert!(can_send(&batch, &[other(0, "xyz")]));
        assert!(!can_send(&batch, &[other(0, "xcz")]));
        assert!(!can_send(&batch, &[other(0, ""), other(1, "")]), "two are in flight");
    }
}
