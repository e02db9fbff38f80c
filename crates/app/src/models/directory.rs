//! Model files out of a directory.

use std::{fs::File, io, path::Path};

use super::{error::FetchError, files::ModelFile, pull::Watch, staging::Staging};

/// Copies a model's files out of `directory`.
pub(super) fn fetch(
    directory: &Path,
    files: &[ModelFile],
    into: &Staging,
    watch: &dyn Watch,
) -> Result<(), FetchError> {
    let place = directory.display().to_string();
    for file in files {
        let path = directory.join(file.path);
        let mut from = match File::open(&path) {
            Ok(from) => from,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if file.required {
                    return Err(FetchError::Missing { place, file: file.path });
                }
                continue;
            }
            Err(source) => return Err(FetchError::Io { path, source }),
        };
        let bytes = from.metadata().map_err(FetchError::io(&path))?.len();
        watch.file(file.path, Some(bytes));
        into.take(file, &place, &mut from, watch)?;
    }
    Ok(())
}
