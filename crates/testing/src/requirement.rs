//! What some tests need and not every machine has.

use std::env;

/// Something that not every machine has. An environment variable controls the tests that need it: with `1` they fail
/// if it is missing, with `0` they are always skipped, otherwise they are skipped if it is missing. A skipped test
/// prints `SKIPPED` and the reason.
#[derive(Clone, Copy, Debug)]
pub enum Requirement {
    /// The model all-MiniLM-L6-v2: `NEARFIELD_REQUIRE_MODEL`.
    Model,
    /// Redis Stack: `NEARFIELD_REQUIRE_REDIS`.
    Redis,
    /// A program or a limit of the system, such as strace: `NEARFIELD_REQUIRE_TOOLS`.
    Tools,
}

impl Requirement {
    /// Returns what `find` finds, or `None` if the test is to be skipped. Panics if the test must not be skipped.
    pub fn find<T>(self, find: impl FnOnce() -> Result<T, String>) -> Option<T> {
        let variable = match self {
            Requirement::Model => "NEARFIELD_REQUIRE_MODEL",
            Requirement::Redis => "NEARFIELD_REQUIRE_REDIS",
            Requirement::Tools => "NEARFIELD_REQUIRE_TOOLS",
        };
        find_if(variable, env::var(variable).ok().as_deref(), find)
    }
}

fn find_if<T>(variable: &str, value: Option<&str>, find: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let found = if value == Some("0") { Err(format!("{variable}=0")) } else { find() };
    match found {
        Ok(found) => Some(found),
        Err(reason) => {
            assert!(value != Some("1"), "{reason}, and {variable}=1");
            eprintln!("SKIPPED: {reason}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: Option<&str>) -> Option<u32> {
        find_if("NEARFIELD_REQUIRE_MODEL", value, || Ok(1))
    }

    fn missing(value: Option<&str>) -> Option<u32> {
        find_if("NEARFIELD_REQUIRE_MODEL", value, || Err("there is no model".to_owned()))
    }

    #[test]
    fn skips_a_test_if_something_is_missing_or_excluded() {
        assert_eq!([None, Some(""), Some("1")].map(found), [Some(1); 3]);
        assert_eq!(found(Some("0")), None);
        assert_eq!([None, Some(""), Some("0")].map(missing), [None; 3]);
    }

    #[test]
    #[should_panic(expected = "there is no model, and NEARFIELD_REQUIRE_MODEL=1")]
    fn fails_a_test_if_something_required_is_missing() {
        missing(Some("1"));
    }
}
