//! Progress of a copy: a bar on a terminal, otherwise a line every few seconds; and documents that could not be
//! copied.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal, Write, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{
    output_file::OutputFile,
    terminal::{self, Terminal, thousands},
};
use service::{CopyFailure, CopyObserver, CopyProgress};

/// Time between progress lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of documents listed. The file given by `--rejects` has all.
const FAILURES_SHOWN_MAX: u64 = 20;

/// Shows the progress of copying and comparing.
pub(super) struct CopyDisplay {
    terminal: Terminal,
    bar: Option<ProgressBar>,
    /// What the current pass does.
    what: &'static str,
    documents: u64,
    started: Instant,
    pass_started: Instant,
    state: Mutex<DisplayState>,
}

struct DisplayState {
    last_line: Instant,
    /// Documents that failed so far.
    failures: u64,
    rejects: Option<(String, BufWriter<File>)>,
    /// Why the rejects file could not be written.
    write_error: Option<std::io::Error>,
}

#[derive(Serialize)]
struct RejectedDocument<'t> {
    collection: &'t str,
    key: &'t str,
    reason: &'t str,
}

impl CopyDisplay {
    pub(super) fn new(rejects: Option<OutputFile>, terminal: Terminal) -> anyhow::Result<CopyDisplay> {
        let rejects =
            rejects.map(|file| anyhow::Ok((file.name().to_owned(), file.create().context("--rejects")?)));
        let rejects = rejects.transpose()?;
        let now = Instant::now();
        Ok(CopyDisplay {
            terminal,
            bar: None,
            what: "",
            documents: 0,
            started: now,
            pass_started: now,
            state: Mutex::new(DisplayState { last_line: now, failures: 0, rejects, write_error: None }),
        })
    }

    /// Starts a pass over about `documents` documents.
    pub(super) fn begin(&mut self, what: &'static str, documents: u64) {
        self.clear_bar();
        (self.what, self.documents, self.pass_started) = (what, documents, Instant::now());
        self.bar = (!self.terminal.quiet && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(documents);
            let template = "{prefix} {bar:32} {percent:>3}%  {msg}  ETA {eta}";
            bar.set_style(ProgressStyle::with_template(template).expect("the template is fixed"));
            bar.set_prefix(what);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
    }

    /// Ends the last pass; returns the seconds since the start.
    pub(super) fn end(&mut self) -> anyhow::Result<f64> {
        self.clear_bar();
        let state = self.state.get_mut().expect("no thread panics while holding the lock");
        if let Some((name, file)) = &mut state.rejects {
            let flushed = state.write_error.take().map_or_else(|| file.flush(), Err);
            flushed.with_context(|| format!("writing {name}"))?;
        }
        Ok(self.started.elapsed().as_secs_f64())
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn warn(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.terminal.warn(text)),
            None => self.terminal.warn(text),
        }
    }
}

impl CopyObserver for CopyDisplay {
    fn progress(&self, progress: CopyProgress) {
        let rate = progress.done as f64 / self.pass_started.elapsed().as_secs_f64().max(1e-3);
        let (done, rate) = (thousands(progress.done), thousands(rate as u64));
        let mut state = self.state.lock().expect("no thread panics while holding the lock");
        if let Some(bar) = &self.bar {
            bar.set_position(progress.done);
            bar.set_message(format!("{done} documents  {rate}/s"));
        } else if state.last_line.elapsed() >= LINE_INTERVAL {
            state.last_line = Instant::now();
            let of = thousands(self.documents);
            self.terminal.note(format_args!("{}: {done} of {of} documents, {rate} per second", self.what));
        }
    }

    fn failure(&self, failure: CopyFailure) {
        let CopyFailure { collection, key, reason } = &failure;
        let mut state = self.state.lock().expect("no thread panics while holding the lock");
        state.failures += 1;
        if state.write_error.is_none()
            && let Some((_, file)) = &mut state.rejects
        {
            let written = serde_json::to_writer(&mut *file, &RejectedDocument { collection, key, reason });
            let written = written.map_err(std::io::Error::from).and_then(|()| file.write_all(b"\n"));
            state.write_error = written.err();
        }
        if state.failures <= FAILURES_SHOWN_MAX {
            let key = terminal::one_line(key, 80);
            let reason = terminal::one_line(reason, 300);
            self.warn(format!("{}: collection {collection}, key {key}: {reason}", self.what));
        } else if state.failures == FAILURES_SHOWN_MAX + 1 {
            self.warn(format!(
                "only the first {FAILURES_SHOWN_MAX} documents are listed; --rejects FILE saves all of them"
            ));
        }
    }
}
