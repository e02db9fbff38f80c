//! Prints filters in RediSearch's query syntax.

use std::fmt::{self, Display, Formatter, Write};

use super::{Filter, parse::ends_name};

/// Prints text that [`Filter::parse`] and RediSearch (dialect 2) parse as the same filter.
///
/// Three filters have no exact text and are approximated: a tag that is not UTF-8 (with replacement characters),
/// [`Filter::All`] inside another filter (`*`), and an empty list of parts (`*` for And, `-*` for Or).
impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Filter::All => f.write_str("*"),
            Filter::Tag { field, values } => {
                write_name(f, field)?;
                f.write_char('{')?;
                for (position, value) in values.iter().enumerate() {
                    if position > 0 {
                        f.write_char('|')?;
                    }
                    write_tag(f, value)?;
                }
                f.write_char('}')
            }
            Filter::Range { field, min, min_exclusive, max, max_exclusive } => {
                write_name(f, field)?;
                f.write_char('[')?;
                write_end(f, *min, *min_exclusive)?;
                f.write_char(' ')?;
                write_end(f, *max, *max_exclusive)?;
                f.write_char(']')
            }
            Filter::And(parts) if parts.is_empty() => f.write_str("*"),
            Filter::Or(parts) if parts.is_empty() => f.write_str("-*"),
            Filter::And(parts) => write_parts(f, parts, " "),
            Filter::Or(parts) => write_parts(f, parts, "|"),
            Filter::Not(part) => {
                f.write_char('-')?;
                write_part(f, part)
            }
        }
    }
}

fn write_parts(f: &mut Formatter<'_>, parts: &[Filter], between: &str) -> fmt::Result {
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        write_part(f, part)?;
    }
    Ok(())
}

/// A part of a larger filter, in parentheses if it is compound.
fn write_part(f: &mut Formatter<'_>, part: &Filter) -> fmt::Result {
    match part {
        Filter::And(_) | Filter::Or(_) | Filter::Not(_) => write!(f, "({part})"),
        Filter::All | Filter::Tag { .. } | Filter::Range { .. } => write!(f, "{part}"),
    }
}

fn write_name(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    f.write_char('@')?;
    for c in name.chars() {
        if ends_name(c) {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char(':')
}

fn write_tag(f: &mut Formatter<'_>, value: &[u8]) -> fmt::Result {
    for c in String::from_utf8_lossy(value).chars() {
        if c.is_ascii_whitespace() || (c.is_ascii_punctuation() && c != '_') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    Ok(())
}

fn write_end(f: &mut Formatter<'_>, end: f64, exclusive: bool) -> fmt::Result {
    if exclusive {
        f.write_char('(')?;
    }
    let size = end.abs();
    if end.is_infinite() {
        f.write_str(if end > 0.0 { "+inf" } else { "-inf" })
    } else if size == 0.0 || (1e-5..1e16).contains(&size) {
        write!(f, "{end}")
    } else {
        write!(f, "{end:e}")
    }
}
