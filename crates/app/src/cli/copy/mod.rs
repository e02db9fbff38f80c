//! `nearfield copy`.

mod progress;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use self::progress::CopyDisplay;
use super::{
    error::UsageError,
    exit::Exit,
    interrupt::Interrupt,
    output_file::{Existing, OutputFile, OutputRules},
    session::Session,
    terminal::thousands,
};
use crate::config::StoreUrl;
use service::{Context, Copier, CopyPlan, CopySummary, CopyVerification};

/// Deadlines protect a server from clients that no longer wait. This caller waits until the end.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Copy collections from one store to another, and compare them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A STORE is a value of --store (directory for the data directory, redis://..., redis-cluster://...) or the path of
another data directory, such as ./old-data. Stop servers that use one of the data directories first; Redis may be in
use.

The copy includes schemas, aliases, default times to live, documents with their expiry, and vectors. Nothing is
embedded again, and no model is needed. Documents that are already equal in the target are not written again: if a copy
is interrupted, run it again. Different documents with the same keys are replaced, and documents that only the target
has are kept. Finally, every document is read back from both stores and compared, and the SHA-256 sums are printed.
Documents that were not copied or differ are listed, and the exit code is 1.

Other users of the machine can see command lines: put a URL with a password into NEARFIELD_COPY_FROM or
NEARFIELD_COPY_TO.

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
    /// Collection to copy; repeatable [default: all]
    #[arg(long, short, value_name = "NAME")]
    collection: Vec<String>,
    /// File for documents that were not copied or differ, one JSON object per line: collection, key, reason
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Replace an existing --rejects file
    #[arg(long, requires = "rejects")]
    force: bool,
}

/// A store given on the command line.
#[derive(Clone, Debug)]
enum StoreArg {
    /// A URL as in `--store`. Never shown.
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
            return Err(UsageError(
                "copy uses two stores: set --from and --to instead of --store".to_owned(),
            )
            .into());
        }
        let settings = session.command_settings()?;
        let from = self.from.config(session).context("--from")?;
        let to = self.to.config(session).context("--to")?;
        let existing = Existing::replace_if(self.force);
        let data_dirs = [&*from.data_dir, &*to.data_dir, &*settings.server.service.data_dir];
        let rules = OutputRules { data_dirs: &data_dirs, inputs: &[], existing };
        let rejects = self.rejects.as_ref().map(|path| OutputFile::new(path, rules)).transpose()?;
        let mut display = CopyDisplay::new(rejects, session.terminal)?;

        let cx = Context::local();
        let cancel = cx.cancel.clone();
        let interrupt = Interrupt::listen(move || cancel.cancel())?;
        // This runtime only waits; the stores have their own threads.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let copier = Copier::open(from, to)?;
        let names = (!self.collection.is_empty()).then_some(&*self.collection);
        let done: Result<_, service::Error> = runtime.block_on(async {
            let plan = copier.plan(&cx, names).await?;
            for note in plan.notes() {
                session.terminal.note(note);
            }
            display.begin("copying", plan.documents());
            let copied = copier.copy(&cx, &plan, &display).await?;
            display.begin("comparing", plan.documents());
            let verified = copier.verify(&cx, &plan, &display).await?;
            Ok((plan, copied, verified))
        });
        let seconds = display.end()?;
        // Report only after everything is durable and the data directories are unlocked.
        drop(copier);
        match done {
            Ok((plan, copied, verified)) => report(session, &plan, copied, verified, seconds),
            Err(error) if interrupt.is_set() && error.code == "cancelled" => {
                session.terminal.note("interrupted: run the same command again to continue");
                Ok(Exit::Interrupted)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl StoreArg {
    /// The configuration of the store: the settings of this command with another location of the documents.
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

/// The result as JSON.
#[derive(Serialize)]
struct CopyReport {
    collections: Vec<CollectionCounts>,
    written: u64,
    unchanged: u64,
    rejected: u64,
    expired: u64,
    skipped: Option<u64>,
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
    let is_equal = verified.is_equal() && copied.rejected == 0;
    let CopySummary { written, unchanged, rejected, expired, skipped } = copied;
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
            expired,
            skipped,
            compared,
            missing,
            different,
            sha256_sum: sum,
            sha256_sum_in_target: sum_in_target,
            equal: is_equal,
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
        let read = written + unchanged + rejected + expired;
        terminal.line(format_args!(
            "documents {read} = written {written} + unchanged {unchanged} + rejected {rejected} + expired {expired}"
        ))?;
        let equal = compared - missing - different;
        terminal.line(format_args!(
            "compared {compared} = equal {equal} + missing {missing} + different {different}, sha256 sum {sum}"
        ))?;
    }
    if let Some(left @ 1..) = skipped {
        terminal.warn(format_args!(
            "{} documents of the source are in no collection or do not match its schema, and were not copied",
            thousands(left)
        ));
    }
    anyhow::ensure!(
        is_equal,
        "the target differs from the source: {rejected} documents were rejected, {missing} are missing, {different} differ"
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
