//! Output: rows of named values, printed as a table or as one JSON object per line.

use std::io::Write;

use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::machine;

/// Named values in print order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(Vec<(&'static str, Value)>);

impl Row {
    /// An empty row.
    pub(crate) fn new() -> Row {
        Row::default()
    }

    /// Adds a value.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Row {
        self.0.push((name, value.into()));
        self
    }

    /// Adds a measured value, rounded to `decimals`; JSON null if it is not finite.
    #[must_use]
    pub(crate) fn with_rounded(self, name: &'static str, value: f64, decimals: i32) -> Row {
        if decimals == 0 && value.is_finite() {
            return self.with(name, value.round() as i64);
        }
        let scale = 10f64.powi(decimals);
        self.with(name, (value * scale).round() / scale)
    }

    fn json(&self) -> String {
        let members: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name))).collect();
        format!("{{{}}}", members.join(","))
    }

    fn cells(&self) -> Vec<String> {
        self.0.iter().map(|(_, value)| cell(value)).collect()
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A table, printed at the end.
    Table,
    /// One JSON object per line, printed as soon as it is known.
    Json,
}

/// The rows of one measurement.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    command: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report of a sub-command.
    pub(crate) fn new(format: Format, command: &'static str) -> Report {
        Report { format, command, rows: Vec::new() }
    }

    /// Adds a row; all rows of a report have the same names. In JSON format the row is printed immediately,
    /// preceded by the sub-command, the machine and the revision.
    pub(crate) fn push(&mut self, row: Row) -> Result<()> {
        if self.format == Format::Json {
            let mut whole = Row::new()
                .with("bench", self.command)
                .with("machine", machine::description())
                .with("revision", machine::revision());
            whole.0.extend(row.0.clone());
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", whole.json())?;
            out.flush()?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Prints the table, if the format is [`Format::Table`].
    pub(crate) fn finish(self) -> Result<()> {
        if self.format == Format::Json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "nearfield-bench {}, {}, revision {}, {}",
            self.command,
            machine::description(),
            machine::revision(),
            machine::today()
        )?;
        writeln!(out, "{}", self.table())?;
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
        if let Some(first) = self.rows.first() {
            table.set_header(first.0.iter().map(|(name, _)| *name));
        }
        for row in &self.rows {
            table.add_row(row.cells());
        }
        let first = self.rows.first().map_or(&[][..], |row| &row.0);
        for (column, (_, value)) in table.column_iter_mut().zip(first) {
            if value.is_number() {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_json_object_in_insertion_order() {
        let row = Row::new()
            .with("z", 1)
            .with_rounded("a", 2.34567, 2)
            .with_rounded("n", 7.6, 0)
            .with("text", "say \"hi\"");
        assert_eq!(row.json(), r#"{"z":1,"a":2.35,"n":8,"text":"say \"hi\""}"#);
        let back: Value = serde_json::from_str(&row.json()).unwrap();
        assert_eq!(back["a"], 2.35);
    }

    #[test]
    fn a_value_that_is_not_finite_is_null_in_json_and_a_dash_in_the_table() {
        let row = Row::new().with_rounded("p99_ms", f64::NAN, 3);
        assert_eq!(row.json(), r#"{"p99_ms":null}"#);
        assert_eq!(row.cells(), ["-"]);
    }
}
