//! Runs a scenario under the model checker; shared by the schedule tests of all crates.

/// Number of priority changes per schedule in PCT.
const PREEMPTIONS: usize = 3;

/// Runs a scenario in `schedules` random schedules and as many PCT schedules (Burckhardt et al. 2010), which have few
/// preemptions, and returns their total number. `SCHEDULES=10000` is the long run.
pub(crate) fn check(schedules: usize, scenario: impl Fn() + Copy + Send + Sync + 'static) -> usize {
    let schedules =
        std::env::var("SCHEDULES").map_or(schedules, |text| text.parse().expect("SCHEDULES is a number"));
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, PREEMPTIONS);
    2 * schedules
}
