//! Samples in turn: every side once, then every side again, so that a machine that slows down slows all.

use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Quantity, Work};
use super::results::{Figure, Measured, Status};
use super::worker::Answer;
use super::workers::Workers;
use crate::error::Result;

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Samples of each side.
    pub(crate) samples: usize,
    /// A side that has taken so long gets no further sample.
    pub(crate) budget: Duration,
}

/// Threads that spin for a while after their work are given time to sleep.
const PAUSE: Duration = Duration::from_millis(10);

/// Measures a work; what goes wrong on a side stays with it.
pub(crate) fn measure(work: Work, effort: Effort, workers: &mut Workers<'_>) -> Result<Measured> {
    let figures = match work.quantity {
        Quantity::Time => times(&work, effort, workers)?,
        Quantity::Memory => memory(&work, workers)?,
    };
    Ok(Measured { work, figures })
}

fn times(work: &Work, effort: Effort, workers: &mut Workers<'_>) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for &side in &work.sides {
        let answer = workers.ask(side.who, &format!("prepare {}", side.key(work.key())))?;
        let status = match answer {
            Answer::Wrong(why) => Status::Failed(why),
            Answer::Absent(why) => Status::Absent(why),
            _ => Status::Good,
        };
        sides.push(Sampled { figure: Figure::new(side, status), spent: Duration::ZERO });
    }
    for _ in 0..effort.samples {
        for sampled in &mut sides {
            if sampled.wants_more(effort.budget) {
                sampled.sample(work, workers)?;
            }
        }
    }
    workers.release()?;
    Ok(sides.into_iter().map(|sampled| sampled.figure).collect())
}

struct Sampled {
    figure: Figure,
    spent: Duration,
}

impl Sampled {
    fn wants_more(&self, budget: Duration) -> bool {
        self.figure.status == Status::Good && self.spent < budget
    }

    fn sample(&mut self, work: &Work, workers: &mut Workers<'_>) -> Result<()> {
        thread::sleep(PAUSE);
        let started = Instant::now();
        let side = self.figure.side;
        match workers.ask(side.who, &format!("time {}", side.key(work.key())))? {
            Answer::Seconds(seconds) => self.figure.samples.push(seconds),
            answer => spoil(&mut self.figure, answer),
        }
        self.spent += started.elapsed();
        Ok(())
    }
}

/// Each side in a process of its own, for a peak is that of a process.
fn memory(work: &Work, workers: &Workers<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &side in &work.sides {
        let mut figure = Figure::new(side, Status::Good);
        match workers.ask_alone(side.who, &format!("memory {}", side.key(work.key())))? {
            Answer::Peak { before, peak } => {
                figure.samples.push(peak);
                figure.before = Some(before);
            }
            answer => spoil(&mut figure, answer),
        }
        figures.push(figure);
    }
    Ok(figures)
}

/// What was sampled before something went wrong is not to be trusted.
fn spoil(figure: &mut Figure, answer: Answer) {
    figure.samples.clear();
    figure.status = match answer {
        Answer::Wrong(why) => Status::Failed(why),
        Answer::Absent(why) => Status::Absent(why),
        answer => Status::Absent(format!("it answered {answer:?}")),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::{Selection, works};
    use crate::bench::workers::Programs;
    use crate::child::Children;

    /// A worker that gives one side a wrong answer, and every other a second.
    fn programs(dir: &std::path::Path) -> Programs {
        let path = dir.join("worker");
        let script = r#"while read what key; do case "$what $key" in
            prepare*@scalar) echo '{"wrong": "h[0]"}';; time*) echo '{"seconds": 1}';; *) echo '{}';;
            esac; done"#;
        // Written by another process: one that is open for writing here cannot be run.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod +x "$0""#;
        let status =
            std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(script).status();
        assert!(status.unwrap().success());
        Programs { ours: path, base: None, python: Err("no Python".to_owned()), script: dir.into() }
    }

    #[test]
    fn what_goes_wrong_on_one_side_stays_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (children, programs) = (Children::new().unwrap(), programs(dir.path()));
        let mut workers = Workers::new(&children, &programs, Duration::from_mins(1));
        let selection =
            Selection { only: "scan/forward/f32/1x65536x512", peers: true, ..Selection::default() };
        let work = works(selection).remove(0);
        let effort = Effort { samples: 2, budget: Duration::from_mins(1) };
        let measured = measure(work, effort, &mut workers).unwrap();
        let of = |name: &str| measured.figures.iter().find(|f| f.side.name == name).unwrap();
        assert_eq!(of("ours").samples, [1.0, 1.0]);
        assert_eq!(of("scalar").status, Status::Failed("h[0]".to_owned()));
        assert_eq!(of("jax-scan").status, Status::Absent("no Python".to_owned()));
        assert!(of("scalar").samples.is_empty());
    }
}
