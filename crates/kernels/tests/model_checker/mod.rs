//! The orders of threads' steps a scenario is run in, under a model checker; for the schedules of all crates.

/// Times one of another priority goes first, in PCT.
const PREEMPTIONS: usize = 3;

/// Runs a scenario in so many random orders of its steps, and in as many that change little but what goes
/// first (PCT: Burckhardt et al. 2010), and says in how many in all. `SCHEDULES=10000` is the long run.
pub(crate) fn check(schedules: usize, scenario: impl Fn() + Copy + Send + Sync + 'static) -> usize {
    let schedules =
        std::env::var("SCHEDULES").map_or(schedules, |text| text.parse().expect("SCHEDULES is a number"));
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, PREEMPTIONS);
    2 * schedules
}
