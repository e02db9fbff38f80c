//! The index through its public interface.

mod churn;
mod exact;
mod filters;
mod recall;
mod refinement;
mod snapshot;
mod stress;
mod synthetic;
mod timed_run;
mod vacuum;
