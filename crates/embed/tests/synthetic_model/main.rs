//! Loading and running small random models: no download needed.

mod accepted;
mod refused;
mod synthetic;
