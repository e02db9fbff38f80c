//! Measures the time of a forward pass by compute type, text length and batch size.
//!
//!     taskset -c 1 cargo run --release -p embed --example forward_pass -- MODEL_DIR [COMPUTE or LEVEL...]
//!
//! Prints the load time per compute type and, per length and batch size, the minimum and the median time
//! per text in microseconds. On a busy machine, compare the minimum. The compute types alternate, so that
//! other load affects all of them equally. Finally it prints the time of each stage of an int8 query of 12
//! tokens, measured separately on matrices with the dimensions of MiniLM-L6.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use embed::{ComputeType, Model, Tokens};
use kernels::simd::dense::{Activation, add_layer_norm};
use kernels::simd::{Cpu, Level, bf16, int8};

/// Tokens per text and texts per batch.
const CASES: [(usize, usize); 7] = [(8, 1), (12, 1), (20, 1), (64, 1), (128, 1), (256, 1), (12, 32)];
/// Measuring time per case and round.
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
            (None, None) => return Err(format!("{name} is neither a compute type nor a SIMD level").into()),
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
    println!("compute tokens batch     min us  median us    min us/token");
    for (tokens, batch) in CASES {
        // Common words of the vocabulary. The choice does not affect the time.
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
                    let start = Instant::now();
                    black_box(model.embed(black_box(&batch), compute));
                    times.push(start.elapsed().as_secs_f64() * 1e6 / batch.len() as f64);
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
    measure_stages(cpu);
    Ok(())
}

/// Measures each int8 stage of six layers with a width of 384.
fn measure_stages(cpu: Cpu) {
    const LAYERS: usize = 6;
    const TOKENS: usize = 12;
    const WIDTH: usize = 384;
    let values =
        |len: usize| -> Vec<f32> { (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect() };
    println!("stage of {LAYERS} layers, {TOKENS} tokens     min us");
    for (stage, inputs, outputs, activation) in [
        ("query, key and value", WIDTH, 3 * WIDTH, Activation::Identity),
        ("attention output", WIDTH, WIDTH, Activation::Identity),
        ("intermediate", WIDTH, 4 * WIDTH, Activation::Identity),
        ("GELU and output", 4 * WIDTH, WIDTH, Activation::Gelu),
    ] {
        let layers: Vec<int8::Int8Linear> = (0..LAYERS)
            .map(|_| {
                let (shifts, factors) = (vec![0.0; inputs], vec![1.0; inputs]);
                int8::Int8Linear::pack(&values(inputs * outputs), &values(outputs), inputs, &shifts, &factors)
            })
            .collect();
        let (x, mut y) = (values(TOKENS * inputs), vec![0.0; TOKENS * outputs]);
        let mut scratch = int8::Int8LinearScratch::default();
        print_min(stage, || {
            layers.iter().for_each(|l| l.apply(cpu, black_box(&x), activation, &mut y, &mut scratch))
        });
    }
    let (qkv, mut context) = (values(TOKENS * 3 * WIDTH), vec![0.0; TOKENS * WIDTH]);
    let mut scratch = bf16::Bf16AttentionScratch::default();
    print_min("attention", || {
        for _ in 0..LAYERS {
            bf16::attention(cpu, black_box(&qkv), WIDTH, 12, &mut context, &mut scratch);
        }
    });
    let (mut hidden, delta, gamma) = (values(TOKENS * WIDTH), values(TOKENS * WIDTH), vec![1.0; WIDTH]);
    print_min("layer norms", || {
        for _ in 0..2 * LAYERS {
            add_layer_norm(cpu, black_box(&mut hidden), &delta, &gamma, &gamma, 1e-12);
        }
    });
}

/// Prints the minimum time of 500 calls.
fn print_min(stage: &str, mut call: impl FnMut()) {
    let mut min = f64::INFINITY;
    for _ in 0..500 {
        let start = Instant::now();
        call();
        min = min.min(start.elapsed().as_secs_f64() * 1e6);
    }
    println!("{stage:>28}   {min:>10.0}");
}
