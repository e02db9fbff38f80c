//! `nearfield doctor`.

use super::{
    client::{ApiPath, Client, ClientFlags},
    exit::Exit,
    session::Session,
    terminal,
};
use server::http::DiagnosisResponse;

/// Searches to run per collection if no server is running.
const PROBE_SEARCHES: usize = 50;

/// Show where query time goes and which settings to change
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examines the last 1,000 searches of the running server, its collections and, if documents are kept in Redis, the
diagnostics of Redis (LATENCY DOCTOR, SLOWLOG, INFO). If no server is running, it runs some searches itself.

With --json: {searches, stages: [{name, share, p50_us, p99_us}], advice, stores}.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    client: ClientFlags,
}

impl DoctorArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let client = session.connect(&self.client)?;
        if client.url().is_none() {
            run_probe_searches(&client)?;
        }
        let diagnosis: DiagnosisResponse = client.get("/doctor")?;
        let terminal = session.terminal;
        if terminal.json {
            terminal.json(&diagnosis)?;
            return Ok(Exit::Done);
        }
        if diagnosis.searches == 0 {
            terminal.line("no searches yet: there are no times to report")?;
        } else {
            let mut table = terminal::table(&["stage", "share", "median", "99th percentile"]);
            for stage in &diagnosis.stages {
                let ms = |us: u64| format!("{:.2} ms", us as f64 / 1e3);
                let share = format!("{:.0} %", stage.share * 100.0);
                table.add_row(vec![stage.name.clone(), share, ms(stage.p50_us), ms(stage.p99_us)]);
            }
            terminal.line(format_args!("the last {} searches:", diagnosis.searches))?;
            terminal.line(table)?;
        }
        for sentence in diagnosis.advice.iter().chain(&diagnosis.stores) {
            terminal.line(format_args!("- {}", terminal::escape_controls(sentence)))?;
        }
        if diagnosis.advice.is_empty() {
            terminal.line("no problems found")?;
        }
        Ok(Exit::Done)
    }
}

/// Searches every collection for words of its own documents. If a search fails, the diagnosis says why.
fn run_probe_searches(client: &Client) -> anyhow::Result<()> {
    let collections: serde_json::Value = client.get("/collections")?;
    let names = collections["collections"].as_array().into_iter().flatten();
    for name in names.filter_map(|info| info["name"].as_str()) {
        let page: serde_json::Value = client
            .get(ApiPath::collection(name).segment("documents").query("limit", Some(PROBE_SEARCHES)))?;
        for document in page["documents"].as_array().into_iter().flatten() {
            let fields = document["fields"].as_object().into_iter().flatten();
            let words = fields.filter_map(|(_, value)| value.as_str()).find(|text| !text.trim().is_empty());
            let Some(words) = words else { continue };
            let question: Vec<&str> = words.split_whitespace().take(8).collect();
            let path =
                ApiPath::new("/search").query("collection", Some(name)).query("q", Some(question.join(" ")));
            let result: anyhow::Result<serde_json::Value> = client.get(path);
            if result.is_err() {
                break;
            }
        }
    }
    Ok(())
}
