//! What came out: samples by work and side, and what is computed from them.

use super::plan::{Role, Side, Work};

/// How a side fared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Status {
    /// Its answer was right.
    Good,
    /// Its answer was wrong, and was not timed.
    Failed(String),
    /// It could not be run here.
    Absent(String),
}

/// The samples of a side.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) side: Side,
    pub(crate) samples: Vec<f64>,
    pub(crate) status: Status,
    /// Where memory is measured: resident bytes before the work.
    pub(crate) before: Option<f64>,
}

impl Figure {
    pub(crate) fn new(side: Side, status: Status) -> Self {
        Self { side, samples: Vec::new(), status, before: None }
    }

    pub(crate) fn median(&self) -> Option<f64> {
        median(&self.samples)
    }

    pub(crate) fn min(&self) -> Option<f64> {
        self.samples.iter().copied().reduce(f64::min)
    }
}

/// A work with all its sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    pub(crate) work: Work,
    pub(crate) figures: Vec<Figure>,
}

impl Measured {
    /// The side's median, if it was timed.
    pub(crate) fn median(&self, side: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.side.name == side)?.median()
    }

    /// The limit that is hardest to reach.
    pub(crate) fn limit(&self) -> Option<(Side, f64)> {
        let limits = self.figures.iter().filter(|figure| figure.side.role == Role::Limit);
        limits
            .filter_map(|figure| Some((figure.side, figure.median()?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// How many times as much as ours.
    pub(crate) fn ratio(&self, figure: &Figure) -> Option<f64> {
        Some(figure.median()? / self.median(Side::OURS.name)?)
    }

    /// Which part of the limit a side reaches; a limit has none.
    pub(crate) fn share(&self, figure: &Figure) -> Option<f64> {
        if figure.side.role == Role::Limit {
            return None;
        }
        Some(self.limit()?.1 / figure.median()?)
    }
}

/// Everything measured in one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Results(pub(crate) Vec<Measured>);

impl Results {
    pub(crate) fn work(&self, name: &str) -> Option<&Measured> {
        self.0.iter().find(|measured| measured.work.name == name)
    }

    /// The least median among some sides of a work.
    pub(crate) fn best(&self, work: &str, sides: &[&str]) -> Option<f64> {
        let measured = self.work(work)?;
        sides.iter().filter_map(|side| measured.median(side)).reduce(f64::min)
    }

    /// Sides that gave a wrong answer, one line each.
    pub(crate) fn failures(&self) -> Vec<String> {
        let figures = self.0.iter().flat_map(|m| m.figures.iter().map(move |f| (m, f)));
        figures
            .filter_map(|(measured, figure)| match &figure.status {
                Status::Failed(why) => {
                    Some(format!("{} by {}: {why}", measured.work.name, figure.side.name))
                }
                _ => None,
            })
            .collect()
    }
}

/// The middle sample, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::plan::{Selection, works};

    /// A whole run in which every sample of a side is `seconds` of it.
    pub(crate) fn invented(seconds: impl Fn(&str, &str) -> f64) -> Results {
        let selection = Selection { peers: true, ..Selection::default() };
        let works = works(selection).into_iter();
        let figure = |work: &Work, side: &Side| {
            let samples = vec![seconds(&work.name, side.name); 3];
            Figure { samples, ..Figure::new(*side, Status::Good) }
        };
        Results(
            works
                .map(|work| Measured {
                    figures: work.sides.iter().map(|side| figure(&work, side)).collect(),
                    work,
                })
                .collect(),
        )
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn ratios_and_shares_are_taken_within_a_work() {
        let results = invented(|_, side| match side {
            "ours" => 2.0,
            "triad-nt" => 1.0,
            "triad" => 1.5,
            _ => 6.0,
        });
        let scan = results.work(crate::bench::plan::scans::LONG).unwrap();
        let of = |name: &str| scan.figures.iter().find(|f| f.side.name == name).unwrap();
        assert_eq!(scan.limit().unwrap().0.name, "triad-nt");
        assert_eq!(scan.share(of("ours")), Some(0.5));
        assert_eq!(scan.ratio(of("jax-scan")), Some(3.0));
        assert_eq!(scan.share(of("triad")), None);
        assert_eq!(results.best(&scan.work.name, &["naive", "triad"]), Some(1.5));
    }

    #[test]
    fn a_wrong_answer_is_listed_and_has_no_ratio() {
        let mut results = invented(|_, _| 1.0);
        let figure = &mut results.0[0].figures[0];
        (figure.samples, figure.status) = (Vec::new(), Status::Failed("h[3]".to_owned()));
        assert_eq!(results.failures().len(), 1);
        assert_eq!(results.0[0].ratio(&results.0[0].figures[0]), None);
    }
}
