//! Output: results go to standard output, everything else to standard error.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::stderr;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Width of a table that is written to a file or a pipe.
const WIDTH_UNKNOWN: u16 = 120;

/// Style of names and titles.
pub(crate) const BOLD: Style = Style::new().bold();
/// Style of secondary information.
pub(crate) const DIM: Style = Style::new().dimmed();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Prints results and messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Print results as JSON.
    pub(crate) json: bool,
    /// Print only results, warnings and errors.
    pub(crate) quiet: bool,
}

impl Terminal {
    /// Sets colours for the whole process.
    pub(crate) fn new(json: bool, quiet: bool, color: Color) -> Terminal {
        match color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        Terminal { json, quiet }
    }

    /// Prints a line of results.
    pub(crate) fn line(&self, text: impl Display) -> io::Result<()> {
        writeln!(anstream::stdout().lock(), "{text}").map_err(tag_stdout_error)
    }

    /// Prints a result as one line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.output().write_all(&line)
    }

    /// Standard output, for results that are written as they are.
    pub(crate) fn output(&self) -> Stdout {
        Stdout(io::stdout())
    }

    /// Prints a progress message, unless `--quiet`.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            print_stderr(format_args!("{text}"));
        }
    }

    /// Prints a warning.
    pub(crate) fn warn(&self, text: impl Display) {
        print_stderr(format_args!("{WARNING}warning:{WARNING:#} {text}"));
    }

    /// Prints an error.
    pub(crate) fn error(&self, text: impl Display) {
        print_stderr(format_args!("{ERROR}error:{ERROR:#} {text}"));
    }

    /// Whether the user can be asked for confirmation.
    pub(crate) fn is_interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a yes-or-no question; anything but yes means no.
    pub(crate) fn confirm(&self, question: &str) -> io::Result<bool> {
        let mut err = anstream::stderr().lock();
        write!(err, "{question} [y/N] ")?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Stdout(io::Stdout);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(tag_stdout_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(tag_stdout_error)
    }
}

/// The reader of standard output is gone (`| head`).
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct OutputClosed;

/// Marks a broken pipe as that of standard output, because a broken connection to a server is a real error.
fn tag_stdout_error(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, OutputClosed),
        _ => error,
    }
}

/// Prints a line to standard error, with styles where they are wanted.
fn print_stderr(text: std::fmt::Arguments<'_>) {
    let mut line = AutoStream::new(Vec::new(), AutoStream::choice(&io::stderr()));
    writeln!(line, "{text}").expect("a vector can be written to");
    stderr::write(&line.into_inner());
}

/// A table with these headings, as wide as the terminal.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_header(headings.to_vec());
    if !io::stdout().is_terminal() {
        table.set_width(WIDTH_UNKNOWN);
    }
    // Always style: the printing stream removes styles if they are not wanted.
    table.enforce_styling();
    table
}

/// A whole number with thousands separators: `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of bytes in the largest unit with a value of at least one: `12.3 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// `text` with control characters other than line breaks and tabs replaced.
pub(crate) fn escape_controls(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() && !"\n\t".contains(char) { '\u{fffd}' } else { char })
        .collect()
}

/// `text` on one line, without control characters, truncated to `chars_max` characters. Documents are untrusted: their
/// escape sequences must not reach the terminal.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split_whitespace() {
        if chars > 0 {
            line.push(' ');
            chars += 1;
        }
        for char in word.chars() {
            if chars == chars_max {
                line.push_str("...");
                return line;
            }
            line.push(if char.is_control() { '\u{fffd}' } else { char });
            chars += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_thousands_and_bytes() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"].map(String::from),
            [0, 999, 1000, 1_234_567].map(thousands)
        );
        assert_eq!(
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"].map(String::from),
            [0, 1023, 1024, 3 << 19].map(bytes)
        );
    }

    #[test]
    fn one_line_replaces_control_characters_and_truncates_by_characters() {
        assert_eq!(one_line("a\n\tb  c", 10), "a b c");
        assert_eq!(one_line("\u{1b}[31mred", 20), "\u{fffd}[31mred");
        assert_eq!(one_line("äöüäöü", 3), "äöü...");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(escape_controls("a\nb\u{1b}c"), "a\nb\u{fffd}c");
    }
}
