//! Runs the seed inputs of the fuzz targets, including inputs that once failed, as normal tests. Use
//! `corpora!(target, ...)` in the `fuzzing` module of a crate.

use std::{fs, path::Path};

/// Runs the target's body with every file in `fuzz/corpus/TARGET`. If it panics, the last printed path is
/// the failing file.
///
/// # Panics
///
/// If the body panics, or if the corpus is empty.
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

/// Defines one test per target, with the name of the target.
macro_rules! corpora {
    ($($target:ident),+ $(,)?) => {
        $(#[test]
        fn $target() {
            replay::replay(stringify!($target), super::$target);
        })+
    };
}
pub(crate) use corpora;
