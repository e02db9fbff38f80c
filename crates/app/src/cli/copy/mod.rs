//! `nearfield copy`.

mod progress;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use self::progress::CopyDisplay;
use super::{error::UsageError, exit::Exit, interrupt::Interrupt, session::Session, terminal::thousands};
use crate::config::StoreUrl;
use service::{Context, Copier, CopyPlan, CopySummary, CopyVerification};

/// A deadline protects a server from clients that have given up; the one caller here waits.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Copy collections from one store to another, and compare them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A STORE is what --store takes (directory: the data directory; redis://...; redis-cluster://...), or the path of
another data directory, such as ./old-data. Servers that have one of the data directories must be stopped first; a Redis
may be in use.

Copied are schemas, aliases, default lives, documents with their ends, and vectors: none is computed anew, and
no model is needed. Documents that stand in the target already, equal, are not written again, so a copy that
was interrupted is simply run again; others under the same keys are replaced, and what only the target has
stays. Then every document is read back from both stores and compared, and the SHA-256 sums of both are state.
Documents that were not copied, or differ, are named, and the exit code is 1.

A command line can be seen by every user of the machine: a URL with a password belongs into NEARFIELD_COPY_FROM
or NEARFIELD_COPY_TO.

Examples:
  nearfield copy --from directory --to redis-cluster://127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003
  nearfield copy --from redis://127.0.0.1:6379 --to ./data --collection articles
  nearfield copy --from ./data --to /mnt/larger/data --rejects left.jsonl")]
pub(crate) struct CopyArgs {
    /// Store to copy from
    #[arg(long, value_name = "STORE", env = "NEARFIELD_COPY_FROM", hide_env_values = true)]
    from: StoreArg,
    /// Store to copy to
    #[arg(long, value_name = "STORE", env = "NEARFIELD_COPY_TO", hide_env_values = true)]
    to: StoreArg,
    /// Collection to copy; may be repeated. All, if not given
    #[arg(long, short, value_name = "NAME")]
    collection: Vec<String>,
    /// File for documents that were not copied or differ, one JSON object a line: collection, key, reason
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

/// A store as it was given.
#[derive(Clone, Debug)]
enum StoreArg {
    /// What `--store` takes; never display.
    Store(StoreUrl),
    /// A data directory.
    Directory(PathBuf),
}

impl From<String> for StoreArg {
    fn from(text: String) -> StoreArg {
        let is_path = !text.contains("://") && (text.contains('/') || text == "." || text == "..");
        if is_path { StoreArg::Directory(text.into()) } else { StoreArg::Store(StoreUrl::from(&*text)) }
    }
}

impl CopyArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        if session.flags.settings.contains("store") {
            return Err(
                UsageError("copy has two stores: give --from and --to, not --store".to_owned()).into()
            );
        }
        session.command_settings()?;
        let from = self.from.config(session).context("--from")?;
        let to = self.to.config(session).context("--to")?;
        let mut display = CopyDisplay::new(self.rejects.as_deref(), session.terminal)?;

        let cx = Context::local();
        let cancel = cx.cancel.clone();
        let interrupt = Interrupt::listen(move || cancel.cancel())?;
        // It only waits; the stores have their own threads for the work.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the thread that copies")?;
        let copying = Copier::open(from, to)?;
        let names = (!self.collection.is_empty()).then_some(&*self.collection);
        let done: Result<_, service::Error> = runtime.block_on(async {
            let plan = copying.plan(&cx, names).await?;
            for note in plan.notes() {
                session.terminal.note(note);
            }
            display.begin("copying", plan.documents());
            let copied = copying.copy(&cx, &plan, &display).await?;
            display.begin("comparing", plan.documents());
            let verified = copying.verify(&cx, &plan, &display).await?;
            Ok((plan, copied, verified))
        });
        let seconds = display.end()?;
        // What is written is durable, and the data directories are free again, before it is state.
        drop(copying);
        match done {
            Ok((plan, copied, verified)) => report(session, &plan, copied, verified, seconds),
            Err(error) if interrupt.is_set() && error.code == "cancelled" => {
                session
                    .terminal
                    .note("interrupted: what was copied stays, and the same command goes on from there");
                Ok(Exit::Interrupted)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl StoreArg {
    /// What the store is opened with: the settings of this command, but for where documents are.
    fn config(&self, session: &Session) -> anyhow::Result<service::Config> {
        let flags = match self.clone() {
            StoreArg::Store(url) => session.flags.clone().with("store", url.reveal()),
            StoreArg::Directory(path) => {
                session.flags.clone().with("store", "directory").with("data_dir", path)
            }
        };
        Ok(service::Config { timeout: TIMEOUT, ..session.settings_with_flags(&flags, None)?.service() })
    }
}

/// The end of a copy as JSON.
#[derive(Serialize)]
struct CopyReport {
    collections: Vec<CollectionCounts>,
    written: u64,
    unchanged: u64,
    rejected: u64,
    ended: u64,
    left_behind: Option<u64>,
    compared: u64,
    missing: u64,
    different: u64,
    sha256_sum: String,
    sha256_sum_in_target: String,
    equal: bool,
    seconds: f64,
}

#[derive(Serialize)]
struct CollectionCounts {
    name: String,
    documents: u64,
    documents_in_target: u64,
}

fn report(
    session: &Session,
    plan: &CopyPlan,
    copied: CopySummary,
    verified: CopyVerification,
    seconds: f64,
) -> anyhow::Result<Exit> {
    let terminal = session.terminal;
    let is_whole = verified.is_equal() && copied.rejected == 0;
    let CopySummary { written, unchanged, rejected, expired: ended, skipped: left_behind } = copied;
    let CopyVerification { documents: compared, missing, different, .. } = verified;
    let (sum, sum_in_target) = (hex(verified.digest), hex(verified.target_digest));
    if terminal.json {
        let counts = verified.counts.into_iter();
        terminal.json(&CopyReport {
            collections: counts
                .map(|(name, documents, documents_in_target)| CollectionCounts {
                    name,
                    documents,
                    documents_in_target,
                })
                .collect(),
            written,
            unchanged,
            rejected,
            ended,
            left_behind,
            compared,
            missing,
            different,
            sha256_sum: sum,
            sha256_sum_in_target: sum_in_target,
            equal: is_whole,
            seconds,
        })?;
    } else {
        for (name, documents, in_target) in &verified.counts {
            terminal.note(format_args!(
                "collection {name}: {} documents, {} in the target",
                thousands(*documents),
                thousands(*in_target)
            ));
        }
        if plan.collections().next().is_none() {
            terminal.note("the source has no collections");
        }
        terminal.note(format_args!("{seconds:.1} s"));
        let read = written + unchanged + rejected + ended;
        terminal.line(format_args!(
            "documents {read} = written {written} + unchanged {unchanged} + rejected {rejected} + ended {ended}"
        ))?;
        let equal = compared - missing - different;
        terminal.line(format_args!(
            "compared {compared} = equal {equal} + missing {missing} + different {different}, sha256 sum {sum}"
        ))?;
    }
    if let Some(left @ 1..) = left_behind {
        terminal.warn(format_args!(
            "{} documents of the source stand in no collection, or do not fit theirs, and were left there",
            thousands(left)
        ));
    }
    anyhow::ensure!(
        is_whole,
        "the target is not what the source is: {rejected} documents were rejected, {missing} are missing, {different} differ"
    );
    Ok(Exit::Done)
}

fn hex(sum: u128) -> String {
    format!("{sum:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_store_urls_from_paths() {
        for path in ["./data", "/var/lib/nearfield", "..", "old/data"] {
            assert!(matches!(StoreArg::from(path.to_owned()), StoreArg::Directory(_)), "{path}");
        }
        for store in ["directory", "redis://127.0.0.1/0", "data", ""] {
            assert!(matches!(StoreArg::from(store.to_owned()), StoreArg::Store(_)), "{store}");
        }
    }
}
