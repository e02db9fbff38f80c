//! What a forward pass costs, by arithmetic, length and batch.
//!
//!     taskset -c 1 cargo run --release -p embed --example forward_pass -- MODEL_DIR [COMPUTE...]
//!
//! Prints, for each arithmetic, how long the model took to load, and for each length and batch the
//! least and the median of the microseconds a text took: on a machine with other work the least is the
//! one to compare. Kinds alternate, so that what else the machine does falls on all of them. Last come
//! the stages of an int8 query of 12 tokens, each alone, on matrices of MiniLM-L6's shape.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use embed::{ComputeType, Model, Tokens};
use kernels::simd::dense::{Activation, add_layer_norm};
use kernels::simd::{Cpu, Level, bf16, int8};

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
        match (ComputeType::from_name(&name), Level::from_name(&name)) {
            (Some(compute), _) => computes.push(compute),
            (None, Some(level)) => cpu = cpu.at_most(level),
            (None, None) => return Err(format!("no compute or level is called {name}").into()),
        }
    }
    if computes.is_empty() {
        computes = ComputeType::ALL.to_vec();
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
    stages(cpu);
    Ok(())
}

/// Times each stage of six layers, 384 wide, in int8.
fn stages(cpu: Cpu) {
    const LAYERS: usize = 6;
    const TOKENS: usize = 12;
    const WIDTH: usize = 384;
    let values =
        |len: usize| -> Vec<f32> { (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect() };
    println!("stage of {LAYERS} layers, {TOKENS} tokens   least us");
    for (stage, inputs, outputs, activation) in [
        ("query, key and value", WIDTH, 3 * WIDTH, Activation::Identity),
        ("attention's projection", WIDTH, WIDTH, Activation::Identity),
        ("inner", WIDTH, 4 * WIDTH, Activation::Identity),
        ("GELU and output", 4 * WIDTH, WIDTH, Activation::Gelu),
    ] {
        let layers: Vec<int8::Linear> = (0..LAYERS)
            .map(|_| {
                let (shifts, factors) = (vec![0.0; inputs], vec![1.0; inputs]);
                int8::Linear::pack(&values(inputs * outputs), &values(outputs), inputs, &shifts, &factors)
            })
            .collect();
        let (x, mut y) = (values(TOKENS * inputs), vec![0.0; TOKENS * outputs]);
        let mut scratch = int8::LinearScratch::default();
        least(stage, || {
            layers.iter().for_each(|l| l.apply(cpu, black_box(&x), activation, &mut y, &mut scratch))
        });
    }
    let (qkv, mut context) = (values(TOKENS * 3 * WIDTH), vec![0.0; TOKENS * WIDTH]);
    let mut scratch = bf16::AttentionScratch::default();
    least("attention", || {
        for _ in 0..LAYERS {
            bf16::attention(cpu, black_box(&qkv), WIDTH, 12, &mut context, &mut scratch);
        }
    });
    let (mut hidden, delta, gamma) = (values(TOKENS * WIDTH), values(TOKENS * WIDTH), vec![1.0; WIDTH]);
    least("layer norms", || {
        for _ in 0..2 * LAYERS {
            add_layer_norm(cpu, black_box(&mut hidden), &delta, &gamma, &gamma, 1e-12);
        }
    });
}

/// Prints the least time of many calls.
fn least(stage: &str, mut call: impl FnMut()) {
    let mut least = f64::INFINITY;
    for _ in 0..500 {
        let begun = Instant::now();
        call();
        least = least.min(begun.elapsed().as_secs_f64() * 1e6);
    }
    println!("{stage:>28}   {least:>10.0}");
}
