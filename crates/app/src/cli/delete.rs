//! `nearfield delete`.

use axum::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    client::{ApiPath, ApiRequest, Client, ClientFlags},
    collection,
    error::{ApiError, UsageError},
    exit::{Exit, ignore_closed_output},
    session::Session,
    terminal::{Terminal, thousands},
};

/// Delete documents by id, or all documents that match a filter
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --json: {deleted} and, for ids, {missing: [id]}.

Examples:
  nearfield delete kb-001 kb-002
  nearfield delete --filter '@category:{old}'
  nearfield delete --filter '*' --yes")]
pub(crate) struct DeleteArgs {
    /// Ids of the documents
    #[arg(value_name = "ID", required_unless_present = "filter")]
    ids: Vec<String>,
    /// Delete the documents that match this filter; * matches all
    #[arg(long, short, value_name = "FILTER", conflicts_with = "ids", allow_hyphen_values = true)]
    filter: Option<String>,
    /// Do not ask for confirmation before deleting by filter
    #[arg(long, short)]
    yes: bool,
    /// Collection; optional if there is only one
    #[arg(long, short, value_name = "NAME")]
    collection: Option<String>,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Deserialize)]
struct CountResponse {
    count: u64,
}

#[derive(Deserialize)]
struct DeleteResponse {
    deleted: u64,
}

impl DeleteArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let terminal = session.terminal;
        if self.filter.is_some() && !self.yes && !terminal.is_interactive() {
            let text = "delete --filter asks for confirmation, which needs a terminal: add --yes to delete without asking";
            return Err(UsageError(text.to_owned()).into());
        }
        let client = session.connect(&self.client)?;
        let name = collection::named_or_only(&client, self.collection.as_deref())?.name;
        match &self.filter {
            Some(filter) => delete_matching(&client, terminal, &name, filter, self.yes),
            None => delete_ids(&client, terminal, &name, &self.ids),
        }
    }
}

fn delete_matching(
    client: &Client,
    terminal: Terminal,
    name: &str,
    filter: &str,
    yes: bool,
) -> anyhow::Result<Exit> {
    if !yes {
        let CountResponse { count } =
            client.get(ApiPath::collection(name).segment("count").query("filter", Some(filter)))?;
        if count > 0 && !terminal.confirm(&format!("Delete {} documents from {name}?", thousands(count)))? {
            terminal.note("nothing deleted");
            return Ok(Exit::Failed);
        }
    }
    let deleted = delete_all(client, terminal, name, filter)?;
    if terminal.json {
        terminal.json(&json!({"deleted": deleted}))?;
    } else {
        terminal.line(format_args!("deleted {}", thousands(deleted)))?;
    }
    Ok(Exit::Done)
}

/// Deletes all matching documents in as many requests as their time limit requires; returns their number.
fn delete_all(client: &Client, terminal: Terminal, name: &str, filter: &str) -> anyhow::Result<u64> {
    let mut before = 0;
    loop {
        let path = ApiPath::collection(name).segment("delete");
        match client.send(Method::POST, path, Some(&json!({"filter": filter}))) {
            Ok(response) => return Ok(before + response.json::<DeleteResponse>()?.deleted),
            Err(error) => {
                let deleted = error.downcast_ref::<ApiError>().map_or(0, |error| error.deleted);
                before += deleted;
                let is_out_of_time =
                    error.downcast_ref::<ApiError>().is_some_and(|error| error.code == "deadline");
                if !is_out_of_time || deleted == 0 {
                    return Err(error.context(format!(
                        "deleted {} documents, the others that match remain",
                        thousands(before)
                    )));
                }
                terminal.note(format_args!("deleted {} documents so far", thousands(before)));
            }
        }
    }
}

fn delete_ids(client: &Client, terminal: Terminal, name: &str, ids: &[String]) -> anyhow::Result<Exit> {
    let mut deleted = 0_u64;
    let mut missing = Vec::new();
    for id in ids {
        let path = ApiPath::collection(name).segment("documents").segment(id);
        let response =
            client.execute(&ApiRequest { method: Method::DELETE, path: path.as_ref(), body: None })?;
        if response.status == 404 {
            missing.push(id);
        } else {
            response.error_for_status()?;
            deleted += 1;
        }
    }
    if terminal.json {
        ignore_closed_output(terminal.json(&json!({"deleted": deleted, "missing": missing})))?;
    } else {
        ignore_closed_output(terminal.line(format_args!("deleted {}", thousands(deleted))))?;
        for id in &missing {
            terminal.warn(format_args!("there is no document {id:?} in {name}"));
        }
    }
    Ok(if missing.is_empty() { Exit::Done } else { Exit::NotFound })
}
