//! Model files from a directory.

use std::{fs::File, io, path::Path};

use super::{error::FetchError, files::ModelFile, progress::PullProgress, staging::Staging};

/// Copies a model's files from `directory`.
pub(super) fn fetch(
    directory: &Path,
    files: &[ModelFile],
    into: &Staging,
    progress: &dyn PullProgress,
) -> Result<(), FetchError> {
    let location = directory.display().to_string();
    for file in files {
        let path = directory.join(file.path);
        let mut from = match File::open(&path) {
            Ok(from) => from,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if file.required {
                    return Err(FetchError::Missing { location, file: file.path });
                }
                continue;
            }
            Err(source) => return Err(FetchError::Io { path, source }),
        };
        let bytes = from.metadata().map_err(FetchError::io(&path))?.len();
        progress.file_started(file.path, Some(bytes));
        into.write_file(file, &location, &mut from, progress)?;
    }
    Ok(())
}
