//! Tests that run the inputs libFuzzer begins with, and those it once failed on, through the same
//! bodies with the tests' own compiler: `corpora!(target, ...)` in a crate's module `fuzzing`.

use std::{fs, path::Path};

/// Runs every file of `fuzz/corpus/TARGET` through the target's body. A file that makes it panic is
/// the last one named.
///
/// # Panics
///
/// If the body does, or if there is no file: a corpus is part of the repository.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a readable directory").path()).collect();
    assert!(!paths.is_empty(), "{} is empty", corpus.display());
    paths.sort_unstable();
    for path in paths {
        println!("{}", path.display());
        run(&fs::read(&path).expect("a readable file"));
    }
}

/// A test for each of these targets, called like it.
macro_rules! corpora {
    ($($target:ident),+ $(,)?) => {
        $(#[test]
        fn $target() {
            replay::replay(stringify!($target), super::$target);
        })+
    };
}
pub(crate) use corpora;
