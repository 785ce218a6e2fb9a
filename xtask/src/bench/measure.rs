//! Samples in turn: every side once, then every side again, so that a machine that slows down slows all.

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
    /// As many, of works that take no longer than [`SOON`] together: a single one of a few milliseconds says little on
    /// a machine with other guests.
    pub(crate) most: usize,
    /// A side that has taken so long gets no further sample.
    pub(crate) budget: Duration,
}

/// Works that take longer are not sampled more often than they have to be.
const SOON: Duration = Duration::from_secs(8);

/// Measures works that are compared with each other; what goes wrong on a side stays with it.
pub(crate) fn measure(
    works: Vec<Work>,
    effort: Effort,
    workers: &mut Workers<'_>,
) -> Result<Vec<Measured>> {
    let mut begun = Vec::new();
    for work in &works {
        begun.push(match work.quantity {
            Quantity::Time => prepared(work, workers)?,
            Quantity::Memory => memory(work, workers)?,
        });
    }
    let started = Instant::now();
    for round in 0..effort.most.max(effort.samples) {
        if round >= effort.samples && started.elapsed() > SOON {
            break;
        }
        for (work, sides) in works.iter().zip(&mut begun) {
            for index in order(sides.len(), round) {
                let sampled = &mut sides[index];
                if sampled.wants_more(work, effort.budget) {
                    sampled.sample(work, workers)?;
                }
            }
        }
    }
    workers.release()?;
    let measured = works.into_iter().zip(begun).map(|(work, sides)| Measured {
        work,
        figures: sides.into_iter().map(|sampled| sampled.figure).collect(),
    });
    Ok(measured.collect())
}

/// In which order the sides of a work have their turn: each round begins with another one and goes on in other steps, so
/// that none always comes after the one that leaves the machine in disorder, or has used up what its host grants it.
fn order(sides: usize, round: usize) -> impl Iterator<Item = usize> {
    let steps: Vec<usize> = (1..sides).filter(|&step| shares_no_factor(step, sides)).collect();
    let step = steps.get(round % steps.len().max(1)).copied().unwrap_or(1);
    (0..sides).map(move |i| (round + i * step) % sides)
}

fn shares_no_factor(a: usize, b: usize) -> bool {
    if b == 0 { a == 1 } else { shares_no_factor(b, a % b) }
}

/// The sides of a work, ready to be sampled.
fn prepared(work: &Work, workers: &mut Workers<'_>) -> Result<Vec<Sampled>> {
    let mut sides = Vec::new();
    for &side in &work.sides {
        let answer = workers.ask(side.who, &format!("prepare {}", side.key(work.key())))?;
        let status = match answer {
            Answer::Wrong(why) => Status::Failed(why),
            Answer::Absent(why) => Status::Absent(why),
            _ => Status::Good,
        };
        sides.push(Sampled::new(Figure::new(side, status)));
    }
    Ok(sides)
}

struct Sampled {
    figure: Figure,
    spent: Duration,
}

impl Sampled {
    fn new(figure: Figure) -> Self {
        Self { figure, spent: Duration::ZERO }
    }

    fn wants_more(&self, work: &Work, budget: Duration) -> bool {
        let is_timed = work.quantity == Quantity::Time;
        is_timed && self.figure.status == Status::Good && self.spent < budget
    }

    fn sample(&mut self, work: &Work, workers: &mut Workers<'_>) -> Result<()> {
        workers.rest();
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
fn memory(work: &Work, workers: &Workers<'_>) -> Result<Vec<Sampled>> {
    let mut sides = Vec::new();
    for &side in &work.sides {
        let mut figure = Figure::new(side, Status::Good);
        match workers.ask_alone(side.who, &format!("memory {}", side.key(work.key())))? {
            Answer::Peak { before, peak } => {
                figure.samples.push(peak);
                figure.before = Some(before);
            }
            answer => spoil(&mut figure, answer),
        }
        sides.push(Sampled::new(figure));
    }
    Ok(sides)
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
    fn every_side_has_its_turn_after_every_other() {
        for sides in [1, 2, 3, 5, 7] {
            let mut pairs = std::collections::HashSet::new();
            for round in 0..4 * sides {
                let order: Vec<usize> = order(sides, round).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..sides), "{order:?}");
                pairs.extend(order.windows(2).map(|pair| (pair[0], pair[1])));
            }
            assert_eq!(pairs.len(), sides * (sides - 1));
        }
    }

    #[test]
    fn what_goes_wrong_on_one_side_stays_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (children, programs) = (Children::new().unwrap(), programs(dir.path()));
        let mut workers = Workers::new(&children, &programs, Duration::from_mins(1));
        let selection =
            Selection { only: "scan/forward/f32/1x65536x512", peers: true, ..Selection::default() };
        let works = works(selection);
        let effort = Effort { samples: 2, most: 2, budget: Duration::from_mins(1) };
        let measured = measure(works, effort, &mut workers).unwrap().remove(0);
        let of = |name: &str| measured.figures.iter().find(|f| f.side.name == name).unwrap();
        assert_eq!(of("ours").samples, [1.0, 1.0]);
        assert_eq!(of("scalar").status, Status::Failed("h[0]".to_owned()));
        assert_eq!(of("jax-scan").status, Status::Absent("no Python".to_owned()));
        assert!(of("scalar").samples.is_empty());
    }
}
