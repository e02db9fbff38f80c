//! Counts rows by outcome, and records rejected rows and committed ids.

use std::{
    fs::File,
    io::{BufWriter, Write},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{row::RejectedRow, sender::BatchOutcome};
use crate::cli::{
    error::UsageError,
    output_file::OutputFile,
    terminal::{self, Terminal},
};

/// Maximum number of rejected rows to show.
const REJECTED_SHOWN_MAX: u64 = 10;

/// Rows by outcome. Its JSON is part of what `index --json` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RowCounts {
    /// Rows with a known outcome: the sum of indexed, unchanged and rejected.
    pub(crate) rows: u64,
    /// Documents written: the sum of created and updated.
    pub(crate) indexed: u64,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    /// Documents that already existed with the same content.
    pub(crate) unchanged: u64,
    pub(crate) rejected: u64,
    /// Documents longer than the model's input; the vector covers their beginning.
    pub(crate) truncated: u64,
}

impl RowCounts {
    fn add(&mut self, outcome: &BatchOutcome) {
        self.created += outcome.created;
        self.updated += outcome.updated;
        self.indexed += outcome.created + outcome.updated;
        self.unchanged += outcome.unchanged;
        self.truncated += outcome.truncated;
        self.rejected += outcome.rejected.len() as u64;
        self.rows = self.indexed + self.unchanged + self.rejected;
    }
}

impl std::fmt::Display for RowCounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RowCounts { rows, indexed, unchanged, rejected, .. } = self;
        write!(formatter, "rows in {rows} = indexed {indexed} + unchanged {unchanged} + rejected {rejected}")
    }
}

/// Records the outcome of every row.
#[derive(Debug)]
pub(crate) struct OutcomeRecorder {
    pub(crate) counts: RowCounts,
    rejects: Option<(String, BufWriter<File>)>,
    acks: Option<(String, File)>,
    terminal: Terminal,
}

impl OutcomeRecorder {
    /// Writes rejected rows to `rejects`, and appends committed ids to `acks`.
    pub(crate) fn open(
        rejects: Option<OutputFile>,
        acks: Option<OutputFile>,
        terminal: Terminal,
    ) -> anyhow::Result<OutcomeRecorder> {
        if let (Some(rejects), Some(acks)) = (&rejects, &acks)
            && rejects.is_same_file(acks)
        {
            return Err(UsageError(format!("--rejects and --acks are the same file, {}", acks.name())).into());
        }
        let rejects =
            rejects.map(|file| anyhow::Ok((file.name().to_owned(), file.create().context("--rejects")?)));
        let acks = acks.map(|file| anyhow::Ok((file.name().to_owned(), file.append().context("--acks")?)));
        Ok(OutcomeRecorder {
            counts: RowCounts::default(),
            rejects: rejects.transpose()?,
            acks: acks.transpose()?,
            terminal,
        })
    }

    /// Records the outcome of a batch.
    pub(crate) fn record(&mut self, outcome: &BatchOutcome) -> anyhow::Result<()> {
        let before = self.counts.rejected;
        self.counts.add(outcome);
        if let Some((name, file)) = &mut self.acks
            && !outcome.committed.is_empty()
        {
            // One write per batch, so that a kill does not split a line.
            let mut lines = outcome.committed.join("\n");
            lines.push('\n');
            file.write_all(lines.as_bytes()).with_context(|| format!("writing {name}"))?;
        }
        for (at, rejected) in (before..).zip(&outcome.rejected) {
            self.reject(at, rejected)?;
        }
        Ok(())
    }

    fn reject(&mut self, at: u64, rejected: &RejectedRow) -> anyhow::Result<()> {
        if at < REJECTED_SHOWN_MAX {
            let id = rejected
                .id
                .as_ref()
                .map(|id| format!(" ({})", terminal::one_line(id, 60)))
                .unwrap_or_default();
            let reason = terminal::one_line(&rejected.reason, 300);
            self.terminal
                .warn(format_args!("{}:{}{id}: {reason}", rejected.location.file, rejected.location.line));
        } else if at == REJECTED_SHOWN_MAX {
            let hint = if self.rejects.is_some() {
                "see the --rejects file"
            } else {
                "save them with --rejects FILE"
            };
            self.terminal.warn(format_args!("further rejected rows are not shown: {hint}"));
        }
        if let Some((name, file)) = &mut self.rejects {
            writeln!(file, "{}", rejected.to_json()?).with_context(|| format!("writing {name}"))?;
        }
        Ok(())
    }

    /// Flushes the files.
    pub(crate) fn close(&mut self) -> anyhow::Result<()> {
        match &mut self.rejects {
            Some((name, file)) => file.flush().with_context(|| format!("writing {name}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::{
        index::row::RowLocation,
        output_file::{Existing, OutputRules},
    };

    #[test]
    fn rows_equal_indexed_plus_unchanged_plus_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let (rejects, acks) = (dir.path().join("rejects"), dir.path().join("acks"));
        std::fs::write(&acks, "before\n").unwrap();
        let terminal = Terminal { json: false, quiet: true };
        let rules = OutputRules { data_dirs: &[], inputs: &[], existing: Existing::Change };
        let file = |path: &Path| Some(OutputFile::new(path, rules).unwrap());
        assert!(OutcomeRecorder::open(file(&acks), file(&acks), terminal).is_err());
        let mut recorder = OutcomeRecorder::open(file(&rejects), file(&acks), terminal).unwrap();
        let rejected = RejectedRow {
            location: RowLocation { file: "kb.csv".into(), line: 7 },
            id: Some("c".into()),
            reason: "no such \"thing\"".into(),
            raw: Some("c,x".into()),
        };
        let outcome = BatchOutcome {
            committed: vec!["a".into(), "b".into()],
            created: 1,
            unchanged: 1,
            truncated: 1,
            rejected: vec![rejected],
            ..BatchOutcome::default()
        };
        recorder.record(&outcome).unwrap();
        recorder
            .record(&BatchOutcome { committed: vec!["d".into()], updated: 1, ..BatchOutcome::default() })
            .unwrap();
        recorder.close().unwrap();
        assert_eq!(recorder.counts.to_string(), "rows in 4 = indexed 2 + unchanged 1 + rejected 1");
        assert_eq!(std::fs::read_to_string(&acks).unwrap(), "before\na\nb\nd\n");
        assert_eq!(
            std::fs::read_to_string(&rejects).unwrap(),
            "{\"file\":\"kb.csv\",\"line\":7,\"id\":\"c\",\"reason\":\"no such \\\"thing\\\"\",\"row\":\"c,x\"}\n"
        );
    }
}
