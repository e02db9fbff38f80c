//! Counts rows by outcome, and records rejected rows and committed ids.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{BufWriter, Write},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    row::RejectedRow,
    sender::{BatchOutcome, Committed},
};
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
    /// Rows with a known outcome: the sum of indexed, unchanged, replaced and rejected.
    pub(crate) rows: u64,
    /// Documents written: the sum of created and updated.
    pub(crate) indexed: u64,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    /// Documents that already existed with the same content.
    pub(crate) unchanged: u64,
    /// Rows that a later row with the same id replaced.
    pub(crate) replaced: u64,
    pub(crate) rejected: u64,
    /// Documents longer than the model's input; the vector covers their beginning.
    pub(crate) truncated: u64,
}

impl RowCounts {
    fn add(&mut self, outcome: &BatchOutcome, documents: &mut CommittedDocuments) {
        for (id, committed) in &outcome.committed {
            match documents.insert(id, *committed) {
                Repetition::First => *self.count(*committed) += 1,
                Repetition::Later { before, now } => {
                    *self.count(before) -= 1;
                    *self.count(now) += 1;
                    self.replaced += 1;
                }
            }
        }
        self.indexed = self.created + self.updated;
        self.truncated += outcome.truncated;
        self.rejected += outcome.rejected.len() as u64;
        self.rows = self.indexed + self.unchanged + self.replaced + self.rejected;
    }

    fn count(&mut self, committed: Committed) -> &mut u64 {
        match committed {
            Committed::Created => &mut self.created,
            Committed::Updated => &mut self.updated,
            Committed::Unchanged => &mut self.unchanged,
        }
    }
}

impl std::fmt::Display for RowCounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RowCounts { rows, indexed, unchanged, replaced, rejected, .. } = self;
        write!(formatter, "rows in {rows} = indexed {indexed} + unchanged {unchanged}")?;
        if *replaced > 0 {
            write!(formatter, " + replaced by later rows with the same id {replaced}")?;
        }
        write!(formatter, " + rejected {rejected}")
    }
}

/// How the documents of a run were committed, compared with before the run. Holds hashes of ids: 16 bytes per document.
#[derive(Debug, Default)]
struct CommittedDocuments {
    by_hash: HashMap<u64, Committed>,
    hasher: RandomState,
}

/// Whether a run has committed a document before.
enum Repetition {
    First,
    /// It has: what the document counted as, and what it counts as now.
    Later {
        before: Committed,
        now: Committed,
    },
}

impl CommittedDocuments {
    fn insert(&mut self, id: &str, committed: Committed) -> Repetition {
        match self.by_hash.entry(self.hasher.hash_one(id)) {
            Entry::Vacant(entry) => {
                entry.insert(committed);
                Repetition::First
            }
            Entry::Occupied(mut entry) => {
                let before = *entry.get();
                // A created document stays one, and an updated one does, even if the last row changes nothing more.
                let now = if before == Committed::Unchanged { committed } else { before };
                entry.insert(now);
                Repetition::Later { before, now }
            }
        }
    }
}

/// Records the outcome of every row.
#[derive(Debug)]
pub(crate) struct OutcomeRecorder {
    pub(crate) counts: RowCounts,
    documents: CommittedDocuments,
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
            documents: CommittedDocuments::default(),
            rejects: rejects.transpose()?,
            acks: acks.transpose()?,
            terminal,
        })
    }

    /// Records the outcome of a batch.
    pub(crate) fn record(&mut self, outcome: &BatchOutcome) -> anyhow::Result<()> {
        let before = self.counts.rejected;
        self.counts.add(outcome, &mut self.documents);
        if let Some((name, file)) = &mut self.acks
            && !outcome.committed.is_empty()
        {
            // One write per batch, so that a kill does not split a line.
            let lines: String = outcome.committed.iter().flat_map(|(id, _)| [id.as_str(), "\n"]).collect();
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
    fn a_document_counts_once_however_many_rows_it_has() {
        use Committed::{Created, Unchanged, Updated};
        let count = |batches: &[&[(&str, Committed)]]| {
            let (mut counts, mut documents) = (RowCounts::default(), CommittedDocuments::default());
            for batch in batches {
                let committed = batch.iter().map(|(id, committed)| ((*id).to_owned(), *committed)).collect();
                counts.add(&BatchOutcome { committed, ..BatchOutcome::default() }, &mut documents);
            }
            (counts.rows, counts.created, counts.updated, counts.unchanged, counts.replaced)
        };
        assert_eq!(count(&[&[("7", Created), ("7", Updated)], &[("7", Updated)]]), (3, 1, 0, 0, 2));
        assert_eq!(count(&[&[("7", Created), ("8", Created), ("7", Unchanged)]]), (3, 2, 0, 0, 1));
        assert_eq!(count(&[&[("7", Unchanged), ("7", Updated), ("7", Unchanged)]]), (3, 0, 1, 0, 2));
    }

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
            committed: vec![("a".into(), Committed::Created), ("b".into(), Committed::Unchanged)],
            truncated: 1,
            rejected: vec![rejected],
            ..BatchOutcome::default()
        };
        recorder.record(&outcome).unwrap();
        let committed = vec![("d".into(), Committed::Updated)];
        recorder.record(&BatchOutcome { committed, ..BatchOutcome::default() }).unwrap();
        recorder.close().unwrap();
        assert_eq!(recorder.counts.to_string(), "rows in 4 = indexed 2 + unchanged 1 + rejected 1");
        assert_eq!(std::fs::read_to_string(&acks).unwrap(), "before\na\nb\nd\n");
        assert_eq!(
            std::fs::read_to_string(&rejects).unwrap(),
            "{\"file\":\"kb.csv\",\"line\":7,\"id\":\"c\",\"reason\":\"no such \\\"thing\\\"\",\"row\":\"c,x\"}\n"
        );
    }
}
