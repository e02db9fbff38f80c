//! Parses the part of RediSearch's query syntax (dialect 2) for TAG and NUMERIC fields.
//!
//! ```text
//! filter       = "*" | "(" filter ")" | union
//! union        = intersection { "|" intersection }
//! intersection = part { part }
//! part         = "-" part | "(" union ")" | "@" name ":" ( tags | range )
//! tags         = "{" value { "|" value } "}"
//! value        = word | '"' text '"'
//! range        = "[" end [ "," ] [ end ] "]"
//! end          = [ "(" ] number
//! ```

use super::{
    ConditionKind, DEPTH_MAX, Filter, FilterError, TERMS_MAX, TEXT_BYTES_MAX, check_kind, check_range,
    unknown_field,
};
use crate::{
    binary::printable,
    schema::{FieldKind, Schema},
};

pub(super) fn parse(text: &str, schema: &Schema) -> Result<Filter, FilterError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(FilterError::Length { max: TEXT_BYTES_MAX, found: text.len() });
    }
    if is_star(text) {
        return Ok(Filter::All);
    }
    let mut parser = Parser { text, position: 0, terms: 0, schema };
    let filter = parser.union(0)?;
    match parser.peek() {
        None => Ok(filter),
        Some(_) => Err(parser.unexpected("the end of the filter")),
    }
}

/// Whether the whole text is `*`, with or without parentheses.
fn is_star(text: &str) -> bool {
    let mut inner = text.trim_ascii();
    while let Some(group) = inner.strip_prefix('(').and_then(|group| group.strip_suffix(')')) {
        inner = group.trim_ascii();
    }
    inner == "*"
}

/// Whether `c` in a field name must be escaped with a backslash.
pub(super) fn ends_name(c: char) -> bool {
    c.is_ascii_whitespace() || (c.is_ascii_punctuation() && c != '_')
}

/// The only part itself, or a node of several parts.
fn one_or(mut parts: Vec<Filter>, node: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
    match parts.len() {
        1 => parts.remove(0),
        _ => node(parts),
    }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    terms: usize,
    schema: &'a Schema,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn next_char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        self.position = self.text.len() - self.rest().trim_ascii_start().len();
        self.next_char()
    }

    /// Skips `wanted` if it comes next.
    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.position += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, expected: &'static str) -> Result<(), FilterError> {
        if self.eat(wanted) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The error for the text at the current position.
    fn unexpected(&self, expected: &'static str) -> FilterError {
        let position = self.position;
        match self.next_char() {
            None => FilterError::End { position, expected },
            Some(_) => FilterError::Unexpected { position, found: self.word_ahead(), expected },
        }
    }

    /// The next word or symbol, for messages.
    fn word_ahead(&self) -> String {
        let is_end = |c: char| c.is_ascii_whitespace() || "(){}[]|@".contains(c);
        let rest = self.rest();
        let len = match rest.find(is_end) {
            Some(0) => 1,
            Some(len) => len,
            None => rest.len(),
        };
        printable(&rest.as_bytes()[..len])
    }

    fn unsupported(&self, what: &'static str, instead: &'static str) -> FilterError {
        FilterError::Unsupported { position: self.position, what, instead }
    }

    fn union(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut alternatives = vec![self.intersection(depth)?];
        while self.eat('|') {
            alternatives.push(self.intersection(depth)?);
        }
        Ok(one_or(alternatives, Filter::Or))
    }

    fn intersection(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut parts = vec![self.part(depth)?];
        while !matches!(self.peek(), None | Some('|' | ')')) {
            parts.push(self.part(depth)?);
        }
        Ok(one_or(parts, Filter::And))
    }

    fn part(&mut self, depth: usize) -> Result<Filter, FilterError> {
        const EXPECTED: &str = "@field:{tag}, @field:[min max], - or (";
        let Some(first) = self.peek() else {
            let empty = self.text.trim_ascii().is_empty();
            return Err(self.unexpected(if empty { "* (everything) or a condition" } else { EXPECTED }));
        };
        match first {
            '@' => self.field(),
            '-' => {
                self.position += 1;
                // A negated group counts as one level, not two.
                let group = self.peek() == Some('(');
                let depth = if group { depth } else { self.deeper(depth)? };
                Ok(Filter::Not(Box::new(self.part(depth)?)))
            }
            '(' => {
                let depth = self.deeper(depth)?;
                self.position += 1;
                let filter = self.union(depth)?;
                self.expect(')', ")")?;
                Ok(filter)
            }
            '*' => Err(self.unsupported("* next to other conditions", ": leave it out")),
            '~' => Err(self.unsupported("an optional condition (~)", ": leave it out")),
            '$' => Err(self.unsupported("a parameter ($)", ": write the value itself")),
            '=' if self.rest().starts_with("=>") => {
                Err(self.unsupported("=>", ": write only the part before it"))
            }
            '|' | ')' | '{' | '}' | '[' | ']' => Err(self.unexpected(EXPECTED)),
            _ => Err(FilterError::FullText { position: self.position, found: self.word_ahead() }),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, FilterError> {
        if depth == DEPTH_MAX {
            return Err(FilterError::Depth { position: self.position, max: DEPTH_MAX });
        }
        Ok(depth + 1)
    }

    fn count_term(&mut self) -> Result<(), FilterError> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(FilterError::Terms { position: self.position, max: TERMS_MAX });
        }
        Ok(())
    }

    fn field(&mut self) -> Result<Filter, FilterError> {
        let start = self.position;
        self.position += 1;
        let name = self.name()?;
        self.expect(':', ": after the field's name")?;
        match self.peek() {
            Some('{') => {
                check_kind(self.schema, &name, start, ConditionKind::Tag)?;
                self.tags(name)
            }
            Some('[') => {
                check_kind(self.schema, &name, start, ConditionKind::Range)?;
                self.range(name)
            }
            _ => Err(match self.schema.field(&name) {
                None => unknown_field(self.schema, &name, start),
                Some(FieldKind::Text) => FilterError::FullText {
                    position: start,
                    found: printable(&self.text.as_bytes()[start..self.position]) + &self.word_ahead(),
                },
                Some(FieldKind::Tag { .. }) => self.unexpected("{ before the tags"),
                Some(FieldKind::Numeric) => self.unexpected("[ before the range"),
                Some(FieldKind::Vector(_)) => self.unsupported("a condition on a vector", ""),
            }),
        }
    }

    fn name(&mut self) -> Result<String, FilterError> {
        let mut name = String::new();
        while let Some(c) = self.next_char() {
            let literal = match c {
                '\\' => self.escaped()?,
                c if ends_name(c) => break,
                c => c,
            };
            self.position += literal.len_utf8();
            name.push(literal);
        }
        if name.is_empty() {
            return Err(self.unexpected("a field's name"));
        }
        Ok(name)
    }

    /// Skips a backslash and returns the character after it.
    fn escaped(&mut self) -> Result<char, FilterError> {
        self.position += 1;
        self.next_char().ok_or_else(|| self.unexpected("a character after \\"))
    }

    fn tags(&mut self, field: String) -> Result<Filter, FilterError> {
        self.position += 1;
        let mut values = Vec::new();
        loop {
            let value = match self.peek() {
                Some('"') => self.quoted_tag()?,
                _ => self.plain_tag()?,
            };
            self.count_term()?;
            values.push(value.into_bytes());
            if self.eat('}') {
                return Ok(Filter::Tag { field, values });
            }
            self.expect('|', "| or } after a tag")?;
        }
    }

    fn quoted_tag(&mut self) -> Result<String, FilterError> {
        self.position += 1;
        let mut value = String::new();
        loop {
            let literal = match self.next_char() {
                None => return Err(self.unexpected("\" after the tag")),
                Some('"') => break,
                Some('\\') => self.escaped()?,
                Some(c) => c,
            };
            self.position += literal.len_utf8();
            value.push(literal);
        }
        if value.is_empty() {
            return Err(self.unexpected("a tag of at least one character"));
        }
        self.position += 1;
        Ok(value)
    }

    /// A tag up to the next `|` or `}`, without surrounding white space.
    fn plain_tag(&mut self) -> Result<String, FilterError> {
        if self.rest().starts_with('$') {
            return Err(self.unsupported("a parameter ($)", ": write the value itself, or \\$"));
        }
        if self.rest().starts_with("w'") {
            return Err(self.unsupported("a pattern (w'...')", ": write the whole tag, or w\\'"));
        }
        let mut value = String::new();
        // Length without trailing white space that is not escaped.
        let mut trimmed_len = 0;
        while let Some(c) = self.next_char() {
            let literal = match c {
                '|' | '}' => break,
                '\\' => self.escaped()?,
                '*' | '%' => {
                    return Err(self.unsupported(
                        "a prefix or a pattern in a tag",
                        ": write the whole tag, or a backslash before the character",
                    ));
                }
                '{' | '"' => return Err(self.unexpected("| or }, or a backslash before the character")),
                c => c,
            };
            self.position += literal.len_utf8();
            value.push(literal);
            if c == '\\' || !c.is_ascii_whitespace() {
                trimmed_len = value.len();
            }
        }
        value.truncate(trimmed_len);
        if value.is_empty() {
            return Err(self.unexpected("a tag"));
        }
        Ok(value)
    }

    fn range(&mut self, field: String) -> Result<Filter, FilterError> {
        let start = self.position;
        self.position += 1;
        let (min, min_exclusive) = self.end()?;
        self.eat(',');
        let (max, max_exclusive) = if self.peek() == Some(']') { (min, min_exclusive) } else { self.end()? };
        self.expect(']', "] after the range")?;
        check_range(&field, min, max, start)?;
        self.count_term()?;
        Ok(Filter::Range { field, min, min_exclusive, max, max_exclusive })
    }

    fn end(&mut self) -> Result<(f64, bool), FilterError> {
        let exclusive = self.eat('(');
        if self.peek() == Some('$') {
            return Err(self.unsupported("a parameter ($)", ": write the number itself"));
        }
        let rest = self.rest();
        let is_end = |c: char| c.is_ascii_whitespace() || "()[]{},|@".contains(c);
        let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
        if word.is_empty() {
            return Err(self.unexpected("a number"));
        }
        let number = match word.to_ascii_lowercase().as_str() {
            "inf" | "+inf" => f64::INFINITY,
            "-inf" => f64::NEG_INFINITY,
            // Rust also parses "infinity", "nan" and numbers that overflow; Redis does not.
            _ => word.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| {
                FilterError::Number { position: self.position, found: printable(word.as_bytes()) }
            })?,
        };
        self.position += word.len();
        Ok((number, exclusive))
    }
}
