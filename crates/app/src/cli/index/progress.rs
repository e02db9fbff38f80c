//! Progress of indexing: a bar on a terminal, otherwise a line every few seconds.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::outcomes::RowCounts;
use crate::cli::terminal::{Terminal, thousands};

/// Time between progress lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the progress of a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    bytes: Option<u64>,
    started: Instant,
    last_line: Instant,
    terminal: Terminal,
}

impl Progress {
    /// Starts showing progress through inputs of `bytes`, if known.
    pub(crate) fn begin(bytes: Option<u64>, terminal: Terminal) -> Progress {
        let bar = (!terminal.quiet && stderr().is_terminal()).then(|| {
            let (bar, template) = match bytes {
                Some(bytes) => (ProgressBar::new(bytes), "{bar:32} {percent:>3}%  {msg}  ETA {eta}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
            };
            bar.set_style(ProgressStyle::with_template(template).expect("the templates are fixed"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        Progress { bar, bytes, started: now, last_line: now, terminal }
    }

    /// Updates the display.
    pub(crate) fn show(&mut self, counts: &RowCounts, bytes_read: u64) {
        let rows = thousands(counts.rows);
        let rate = thousands(self.rows_per_second(counts) as u64);
        if let Some(bar) = &self.bar {
            bar.set_position(bytes_read);
            bar.set_message(format!("{rows} rows  {rate}/s"));
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let part = self.bytes.filter(|bytes| *bytes > 0).map(|bytes| bytes_read.min(bytes) * 100 / bytes);
            let part = part.map(|percent| format!(", {percent}% of the input")).unwrap_or_default();
            self.terminal.note(format_args!("{rows} rows, {rate} per second{part}"));
        }
    }

    /// Runs `print` while the bar is hidden.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the bar; returns the seconds since the start.
    pub(crate) fn end(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }

    fn rows_per_second(&self, counts: &RowCounts) -> f64 {
        counts.rows as f64 / self.started.elapsed().as_secs_f64().max(1e-3)
    }
}
