//! A small clock for benches: the median of many batches, and allocations per operation.
//!
//! `cargo bench -p trunkline-media --bench srtp` prints every case. With a case's name and a number
//! behind `--` only that case is run, that many times and without looking at a clock: for
//! callgrind.

use std::time::{Duration, Instant};

#[path = "../../tests/counting/mod.rs"]
mod counting;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Batches measured after one to warm up.
const BATCHES: usize = 61;

/// What the command line asks for.
pub(crate) struct Bench {
    only: Option<(String, usize)>,
}

impl Bench {
    pub(crate) fn from_arguments() -> Self {
        // Cargo adds `--bench` of its own.
        let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
        let count = |word: String| word.parse().expect("a number of runs");
        let only = words.next().map(|name| (name, words.next().map_or(1, count)));
        if only.is_none() {
            println!("{:<44} {:>9} {:>21} {:>7}", "case", "median", "p10 .. p90", "allocs");
        }
        Self { only }
    }

    /// Measures `run` in batches of `batch`; `prepare` is called before each of them, unmeasured.
    pub(crate) fn case<S>(
        &self,
        (name, batch): (&str, usize),
        mut state: S,
        mut prepare: impl FnMut(&mut S),
        mut run: impl FnMut(&mut S, usize),
    ) {
        let mut batch_of = |size: usize| {
            prepare(&mut state);
            let allocations = counting::allocations();
            let begun = now();
            (0..size).for_each(|at| run(&mut state, at));
            (begun.elapsed(), counting::allocations() - allocations)
        };
        if let Some((only, count)) = &self.only {
            let sizes = (0..*count).step_by(batch).map(|at| batch.min(count - at));
            sizes.filter(|_| only == name).for_each(|size| {
                batch_of(size);
            });
            return;
        }
        batch_of(batch);
        let mut times = [Duration::ZERO; BATCHES];
        let mut allocated = 0;
        for time in &mut times {
            let (elapsed, allocations) = batch_of(batch);
            *time = elapsed;
            allocated += allocations;
        }
        times.sort_unstable();
        let at = |share: usize| {
            let time = times.get(BATCHES * share / 100).expect("a share below a hundred");
            time.as_secs_f64() * 1e9 / batch as f64
        };
        let range = format!("{:.0} .. {:.0} ns", at(10), at(90));
        let allocations = allocated as f64 / (BATCHES * batch) as f64;
        println!("{name:<44} {:>6.0} ns {range:>21} {allocations:>7.2}", at(50));
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn now() -> Instant {
    Instant::now()
}
