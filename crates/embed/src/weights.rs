//! Named tensors of a safetensors file.

use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use crate::LoadError;

/// The tensors of a weights file, by their BERT names.
pub(crate) struct Weights<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> Weights<'a> {
    /// Parses `bytes`, the content of the file at `path`.
    pub(crate) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Weights<'a>, LoadError> {
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|source| LoadError::Weights { path: path.into(), source })?;
        Ok(Weights { path, tensors })
    }

    /// Gets the tensor `name` (or `bert.` followed by that name, as some exports have it) in single
    /// precision. It must have the shape `shape`, and all values must be finite.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let view = self
            .tensors
            .tensor(name)
            .or_else(|_| self.tensors.tensor(&format!("bert.{name}")))
            .map_err(|_| LoadError::MissingTensor { path: self.path.into(), tensor: name.into() })?;
        let wrong = |found: String, expected: String| LoadError::Tensor {
            path: self.path.into(),
            tensor: name.into(),
            found,
            expected,
        };
        if view.shape() != shape {
            return Err(wrong(
                format!("has shape {:?}", view.shape()),
                format!("shape {shape:?} according to config.json"),
            ));
        }
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => view.data().as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).into()).collect(),
            Dtype::BF16 => view.data().as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).into()).collect(),
            other => return Err(wrong(format!("has type {other}"), "F32, F16 or BF16".into())),
        };
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(wrong(format!("contains {value}"), "finite values only".into())),
            None => Ok(values),
        }
    }
}
