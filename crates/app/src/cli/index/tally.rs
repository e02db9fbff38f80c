//! The counts of a run, and where single rows are written down.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{post::Posted, row::Rejected};
use crate::cli::{
    rejects,
    terminal::{self, Terminal},
};

/// Rejected rows that are shown one by one.
const SHOWN_MAX: u64 = 10;

/// What became of all rows so far. Its JSON is what `index --json` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Rows read whose fate is known: the sum of indexed, unchanged and rejected.
    pub(crate) rows: u64,
    /// Documents written: created and updated.
    pub(crate) indexed: u64,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    /// Documents that stood there already.
    pub(crate) unchanged: u64,
    pub(crate) rejected: u64,
    /// Documents longer than the model reads; their vector stands for their beginning.
    pub(crate) truncated: u64,
}

impl Tally {
    fn add(&mut self, posted: &Posted) {
        self.created += posted.created;
        self.updated += posted.updated;
        self.indexed += posted.created + posted.updated;
        self.unchanged += posted.unchanged;
        self.truncated += posted.truncated;
        self.rejected += posted.rejected.len() as u64;
        self.rows = self.indexed + self.unchanged + self.rejected;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { rows, indexed, unchanged, rejected, .. } = self;
        write!(formatter, "rows in {rows} = indexed {indexed} + unchanged {unchanged} + rejected {rejected}")
    }
}

/// Writes down what became of rows.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) tally: Tally,
    rejects: Option<(String, BufWriter<File>)>,
    acks: Option<(String, File)>,
    terminal: Terminal,
}

impl Ledger {
    /// A ledger that writes rejected rows to `rejects` (made anew) and committed ids to `acks`
    /// (appended to).
    pub(crate) fn open(
        rejects: Option<&Path>,
        acks: Option<&Path>,
        terminal: Terminal,
    ) -> anyhow::Result<Ledger> {
        let rejects = rejects.map(rejects::create).transpose()?;
        let acks = acks
            .map(|path| {
                let name = path.display().to_string();
                let file = File::options().append(true).create(true).open(path);
                anyhow::Ok((name.clone(), file.with_context(|| format!("--acks {name}"))?))
            })
            .transpose()?;
        Ok(Ledger { tally: Tally::default(), rejects, acks, terminal })
    }

    /// Takes in what became of a batch.
    pub(crate) fn take(&mut self, posted: &Posted) -> anyhow::Result<()> {
        let before = self.tally.rejected;
        self.tally.add(posted);
        if let Some((name, file)) = &mut self.acks
            && !posted.committed.is_empty()
        {
            // One write a batch: a line is never torn by a kill between two of them.
            let mut lines = posted.committed.join("\n");
            lines.push('\n');
            file.write_all(lines.as_bytes()).with_context(|| format!("writing {name}"))?;
        }
        for (at, rejected) in (before..).zip(&posted.rejected) {
            self.reject(at, rejected)?;
        }
        Ok(())
    }

    fn reject(&mut self, at: u64, rejected: &Rejected) -> anyhow::Result<()> {
        if at < SHOWN_MAX {
            let id = rejected
                .id
                .as_ref()
                .map(|id| format!(" ({})", terminal::one_line(id, 60)))
                .unwrap_or_default();
            let reason = terminal::one_line(&rejected.reason, 300);
            self.terminal.warn(format_args!("{}:{}{id}: {reason}", rejected.place.file, rejected.place.line));
        } else if at == SHOWN_MAX {
            let hint = if self.rejects.is_some() {
                "they are in the --rejects file"
            } else {
                "--rejects FILE keeps them"
            };
            self.terminal.warn(format_args!("more rows are rejected, not shown here: {hint}"));
        }
        if let Some((name, file)) = &mut self.rejects {
            writeln!(file, "{}", rejected.to_json()?).with_context(|| format!("writing {name}"))?;
        }
        Ok(())
    }

    /// Writes out what is held back.
    pub(crate) fn close(&mut self) -> anyhow::Result<()> {
        match &mut self.rejects {
            Some((name, file)) => file.flush().with_context(|| format!("writing {name}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::index::row::Place;

    #[test]
    fn rows_are_the_sum_of_their_fates() {
        let dir = tempfile::tempdir().unwrap();
        let (rejects, acks) = (dir.path().join("rejects"), dir.path().join("acks"));
        std::fs::write(&acks, "before\n").unwrap();
        let terminal = Terminal { json: false, quiet: true };
        let mut ledger = Ledger::open(Some(&rejects), Some(&acks), terminal).unwrap();
        let rejected = Rejected {
            place: Place { file: "kb.csv".into(), line: 7 },
            id: Some("c".into()),
            reason: "no such \"thing\"".into(),
            raw: Some("c,x".into()),
        };
        let posted = Posted {
            committed: vec!["a".into(), "b".into()],
            created: 1,
            unchanged: 1,
            truncated: 1,
            rejected: vec![rejected],
            ..Posted::default()
        };
        ledger.take(&posted).unwrap();
        ledger.take(&Posted { committed: vec!["d".into()], updated: 1, ..Posted::default() }).unwrap();
        ledger.close().unwrap();
        assert_eq!(ledger.tally.to_string(), "rows in 4 = indexed 2 + unchanged 1 + rejected 1");
        assert_eq!(std::fs::read_to_string(&acks).unwrap(), "before\na\nb\nd\n");
        assert_eq!(
            std::fs::read_to_string(&rejects).unwrap(),
            "{\"file\":\"kb.csv\",\"line\":7,\"id\":\"c\",\"reason\":\"no such \\\"thing\\\"\",\"row\":\"c,x\"}\n"
        );
    }
}
