//! What can be timed, and how long a sample lasts.

use crate::error::Result;
use std::time::{Duration, Instant};

/// Inputs in memory and a way to run on them. Whoever made it has checked its answer.
pub(crate) trait Work {
    fn run(&mut self) -> Result<()>;

    /// What the time of a run is divided by: the tokens where a time a token is asked for.
    fn units(&self) -> f64 {
        1.0
    }
}

/// Work with the number of runs that make a sample.
pub(crate) struct Timed {
    work: Box<dyn Work>,
    runs: u32,
    is_warmed: bool,
}

/// Long against the clock's resolution and a thread's wake-up, short against a person's patience.
const SAMPLE: Duration = Duration::from_millis(30);

/// Shorter samples follow runs that are not timed: the side before leaves the caches, the threads and the
/// memory's free pages in another state than one's own run does.
const WARMED: Duration = Duration::from_millis(500);

impl Timed {
    /// Finds out how many runs a sample takes.
    pub(crate) fn new(mut work: Box<dyn Work>) -> Result<Self> {
        work.run()?;
        let mut runs = 1_u32;
        loop {
            let took = repeat(work.as_mut(), runs)?;
            if took >= SAMPLE || runs >= 1 << 24 {
                return Ok(Self { work, runs, is_warmed: took < WARMED });
            }
            let wanted = SAMPLE.as_secs_f64() / took.as_secs_f64().max(1e-9);
            // At most tenfold at once: the first runs are slower than those to come.
            runs = (f64::from(runs) * wanted.clamp(1.5, 10.0)).ceil() as u32;
        }
    }

    /// Seconds of a unit.
    pub(crate) fn sample(&mut self) -> Result<f64> {
        if self.is_warmed {
            repeat(self.work.as_mut(), self.runs.div_ceil(4))?;
        }
        let took = repeat(self.work.as_mut(), self.runs)?;
        Ok(took.as_secs_f64() / f64::from(self.runs) / self.work.units())
    }
}

fn repeat(work: &mut dyn Work, runs: u32) -> Result<Duration> {
    let started = Instant::now();
    for _ in 0..runs {
        work.run()?;
    }
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Problem;

    struct Failing;

    impl Work for Failing {
        fn run(&mut self) -> Result<()> {
            Err(Problem::Wrong("always".to_owned()))
        }
    }

    #[test]
    fn work_that_fails_is_not_timed() {
        assert!(Timed::new(Box::new(Failing)).is_err());
    }
}
