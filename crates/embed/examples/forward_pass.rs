//! What a forward pass costs, by arithmetic, length and batch.
//!
//!     taskset -c 1 cargo run --release -p embed --example forward_pass -- MODEL_DIR [COMPUTE...]
//!
//! Prints, for each arithmetic, how long the model took to load, and for each length and batch the
//! least and the median of the microseconds a text took: on a machine with other work the least is the
//! one to compare. Kinds alternate, so that what else the machine does falls on all of them.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use embed::{Compute, Model, Tokens};
use kernels::simd::{Cpu, Level};

/// Tokens a text and texts a batch.
const CASES: [(usize, usize); 7] = [(8, 1), (12, 1), (20, 1), (64, 1), (128, 1), (256, 1), (12, 32)];
/// How long each case is measured in each round.
const CASE_TIME: Duration = Duration::from_millis(60);
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: forward_pass MODEL_DIR [COMPUTE or LEVEL...]")?);
    let (mut computes, mut cpu) = (Vec::new(), Cpu::detect());
    for name in arguments {
        match (Compute::from_name(&name), Level::from_name(&name)) {
            (Some(compute), _) => computes.push(compute),
            (None, Some(level)) => cpu = cpu.at_most(level),
            (None, None) => return Err(format!("no compute or level is called {name}").into()),
        }
    }
    if computes.is_empty() {
        computes = Compute::ALL.to_vec();
    }
    println!("{}, vnni {}, bf16 {}", cpu.level().name(), cpu.has_vnni(), cpu.has_bf16());
    for &compute in &computes {
        let started = Instant::now();
        black_box(Model::load(&dir, cpu, &[compute])?);
        println!("{:>5}: loaded in {:.0} ms", compute.name(), started.elapsed().as_secs_f64() * 1e3);
    }
    let model = Model::load(&dir, cpu, &computes)?;
    println!("compute tokens batch   least us  median us  least us/token");
    for (tokens, batch) in CASES {
        // Common words of the vocabulary; which ones does not matter for the time.
        let batch: Vec<Tokens> = (0..batch)
            .map(|text| {
                let ids = (0..tokens).map(|i| (2000 + (text * 31 + i * 7) % 5000) as u32).collect();
                Tokens { ids, truncated: false }
            })
            .collect();
        let mut times = vec![Vec::new(); computes.len()];
        for _ in 0..ROUNDS {
            for (&compute, times) in computes.iter().zip(&mut times) {
                let started = Instant::now();
                while started.elapsed() < CASE_TIME {
                    let begun = Instant::now();
                    black_box(model.embed(black_box(&batch), compute));
                    times.push(begun.elapsed().as_secs_f64() * 1e6 / batch.len() as f64);
                }
            }
        }
        for (compute, times) in computes.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            println!(
                "{:>7} {tokens:>6} {:>5} {:>10.0} {:>10.0} {:>15.1}",
                compute.name(),
                batch.len(),
                times[0],
                times[times.len() / 2],
                times[0] / tokens as f64
            );
        }
    }
    Ok(())
}
