//! Loading and running small random models, which need no download.

mod rejected_models;
mod supported_models;
mod synthetic;
