//! Rounds over all points in which engines take turns.

use anyhow::Result;

use super::{Questions, Round, contender::Contender, curve::Curve};

/// An engine, what it is asked, at which breadths, and what that gave.
pub(super) struct Turn<'a> {
    contender: &'a mut Contender,
    questions: &'a Questions,
    breadths: &'a [usize],
    /// Those of each breadth.
    rounds: Vec<Vec<Round>>,
}

impl<'a> Turn<'a> {
    /// Nothing measured yet; breadths ascend.
    pub(super) fn new(
        contender: &'a mut Contender,
        questions: &'a Questions,
        breadths: &'a [usize],
    ) -> Turn<'a> {
        Turn { contender, questions, breadths, rounds: vec![Vec::new(); breadths.len()] }
    }

    /// The medians.
    pub(super) fn curve(&self) -> Curve {
        Curve::of(self.breadths, &self.rounds)
    }
}

/// Measures each engine at each of its breadths `runs` times, point by point in turn; who goes first
/// changes from round to round.
pub(super) fn take(turns: &mut [Turn<'_>], runs: usize) -> Result<()> {
    let engines = turns.len();
    let longest = turns.iter().map(|turn| turn.breadths.len()).max().unwrap_or(0);
    for run in 0..runs {
        for place in 0..longest {
            for number in 0..engines {
                let turn = &mut turns[(run + number) % engines];
                if let Some(&ef) = turn.breadths.get(place) {
                    turn.rounds[place].push(turn.contender.search(turn.questions, ef, true)?);
                }
            }
        }
        eprintln!("round {} of {runs} done", run + 1);
    }
    Ok(())
}
