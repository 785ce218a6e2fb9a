//! What is to be reached, as quotients within one run.

use super::plan::models::{
    EIGHT_HEADS, GROWTH, LAYER_FORWARD, LAYER_GRADIENT, MAX_HEADS, PROMPTS, by_tokens, many_texts,
    one_text,
};
use super::plan::scans::{
    AS_MANY, LONG, LONG_COMPLEX, LONG_COMPLEX_GRADIENT, LONG_GRADIENT, NARROW, SMALL,
};
use super::results::Results;

const OURS: &[&str] = &["ours"];
const TRAFFIC: &[&str] = &["triad", "triad-nt"];
const PRODUCT: &[&str] = &["product"];
const READ: &[&str] = &["read"];
const REFERENCE: &[&str] = &["reference", "reference-checkpointed"];

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The best of some sides of a work; of several works that are one and the same, the mean of those that were measured.
#[derive(Debug, Clone, PartialEq)]
struct At {
    works: Vec<String>,
    sides: &'static [&'static str],
}

impl At {
    fn value(&self, results: &Results) -> Option<f64> {
        let best = |work: &String| results.best(work, self.sides);
        let values: Vec<f64> = self.works.iter().filter_map(best).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// What is compared with the bound.
#[derive(Debug, Clone, PartialEq)]
enum Quotient {
    Ratio {
        over: At,
        under: At,
    },
    /// The largest over the smallest of ours, in works that were timed in turn.
    Spread(Vec<String>),
    /// The same of the time a token beyond the first.
    TimeSpread(Vec<usize>),
    /// The same of the memory a token beyond the shortest sequence's.
    MemorySpread(Vec<usize>),
}

/// A row of the table of targets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) what: String,
    quotient: Quotient,
    pub(crate) bound: Bound,
}

impl Target {
    /// The figure of this run; none where a part of it was not measured.
    pub(crate) fn value(&self, results: &Results) -> Option<f64> {
        match &self.quotient {
            Quotient::Ratio { over, under } => Some(over.value(results)? / under.value(results)?),
            Quotient::Spread(works) => {
                spread(works.iter().map(|work| results.best(work, OURS)).collect())
            }
            Quotient::TimeSpread(lengths) => {
                spread(lengths.iter().map(|&tokens| time_a_token(results, tokens)).collect())
            }
            Quotient::MemorySpread(lengths) => {
                spread(lengths.iter().map(|&tokens| memory_a_token(results, tokens)).collect())
            }
        }
    }

    pub(crate) fn is_met(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }
}

/// Seconds that each token beyond the first adds to a step: what no length adds to, calls and the update of the
/// parameters, is not counted.
pub(crate) fn time_a_token(results: &Results, tokens: usize) -> Option<f64> {
    let step = |tokens| Some(results.best(&by_tokens(tokens), OURS)? * tokens as f64);
    Some((step(tokens)? - step(1)?) / (tokens as f64 - 1.0))
}

/// Bytes that each token beyond those of the shortest sequence adds to the peak of a step; none for that itself. A
/// single token would say nothing of what no length adds to: libtorch's products, whose memory is a part of that, are not
/// used for it. The worker takes no more than it needs for this: a large page is as much as a hundred tokens.
pub(crate) fn memory_a_token(results: &Results, tokens: usize) -> Option<f64> {
    let peak = |tokens| results.best(&format!("memory/{}", by_tokens(tokens)), OURS);
    let shortest = GROWTH[0];
    (tokens > shortest).then_some(())?;
    Some((peak(tokens)? - peak(shortest)?) / (tokens - shortest) as f64)
}

fn spread(values: Option<Vec<f64>>) -> Option<f64> {
    let values = values?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some(most / values.into_iter().reduce(f64::min)?)
}

/// Every target, in the order of the works.
pub(crate) fn targets() -> Vec<Target> {
    let mut targets = scan();
    targets.extend(layer_and_training());
    targets.extend(growth_and_generation());
    targets
}

fn scan() -> Vec<Target> {
    let share = |name: &str, work: &str, least: f64| {
        let what = format!("{name}: share of its traffic's limit");
        ratio(what, (work, TRAFFIC), (work, OURS), Bound::AtLeast(least))
    };
    let faster = |what: &str, work: &str, peer: &'static [&'static str], least: f64| {
        ratio(what, (work, peer), (work, OURS), Bound::AtLeast(least))
    };
    let mut targets = vec![
        share("scan (1,65536,512) forward", LONG, 0.90),
        faster("scan forward: times jax associative_scan", LONG, &["jax-associative"], 6.0),
        faster(
            "scan forward: times torch associative_scan, compiled",
            LONG,
            &["torch-associative"],
            4.0,
        ),
        faster("scan forward: times jax lax.scan", LONG, &["jax-scan"], 3.0),
        share("scan forward + adjoint", LONG_GRADIENT, 0.85),
        faster(
            "scan forward + adjoint: times the jax gradient",
            LONG_GRADIENT,
            &["jax-associative"],
            8.0,
        ),
        share("complex scan forward", LONG_COMPLEX, 0.85),
        share("complex scan forward + adjoint", LONG_COMPLEX_GRADIENT, 0.85),
    ];
    for shape in SMALL {
        let work = format!("scan/forward/f32/{shape}");
        let what = format!("small scan {shape}: times the plain loop");
        targets.push(faster(&what, &work, &["scalar"], 1.0));
    }
    let what = "scan (1,1048576,8): times as many elements at C = 512";
    targets.push(ratio(what, (NARROW, OURS), (AS_MANY, OURS), Bound::AtMost(2.0)));
    targets
}

fn layer_and_training() -> Vec<Target> {
    let within = |what: &str, work: &str, most: f64| {
        ratio(what, (work, OURS), (work, PRODUCT), Bound::AtMost(most))
    };
    let memory = |what: &str, work: &str| {
        let work = format!("memory/{work}");
        ratio(what, (&work, OURS), (&work, REFERENCE), Bound::AtMost(0.5))
    };
    let [long, short] = LAYER_GRADIENT;
    let reference = (MAX_HEADS, REFERENCE);
    let heads = (EIGHT_HEADS, OURS);
    vec![
        within("SimpleGateLoop(512) forward: times its matrix product", LAYER_FORWARD, 1.15),
        within("SimpleGateLoop(512) forward + backward: times its products", long, 1.25),
        within("the same at 16,384 tokens", short, 1.25),
        within("training step, max heads: times its matrix products", MAX_HEADS, 1.3),
        ratio(
            "training step, max heads: reference's time over ours",
            reference,
            (MAX_HEADS, OURS),
            Bound::AtLeast(1.5),
        ),
        ratio(
            "training step, 8 heads: reference's time over ours",
            (EIGHT_HEADS, REFERENCE),
            heads,
            Bound::AtLeast(30.0),
        ),
        ratio(
            "training step, 8 heads: times our max heads",
            heads,
            (MAX_HEADS, OURS),
            Bound::AtMost(1.3),
        ),
        memory("peak memory of the step, max heads: part of the reference's", MAX_HEADS),
        memory("peak memory of the step, 8 heads: part of the reference's", EIGHT_HEADS),
    ]
}

fn growth_and_generation() -> Vec<Target> {
    let one = |prompt| one_text("f32", prompt);
    let (at_512, many) = (one(512), many_texts("f32"));
    let flat = PROMPTS.map(one).to_vec();
    // A token takes as long whatever the prompt was.
    let any = |sides| At { works: flat.clone(), sides };
    vec![
        Target {
            what: "time a further token from T = 256 to 65,536: largest over smallest".to_owned(),
            quotient: Quotient::TimeSpread(GROWTH.to_vec()),
            bound: Bound::AtMost(1.2),
        },
        Target {
            what: "memory a further token from T = 256 to 65,536: largest over smallest".to_owned(),
            quotient: Quotient::MemorySpread(GROWTH[1..].to_vec()),
            bound: Bound::AtMost(1.1),
        },
        Target {
            what: "generation, batch 1: share of the weight-reading limit".to_owned(),
            quotient: Quotient::Ratio { over: any(READ), under: any(OURS) },
            bound: Bound::AtLeast(0.7),
        },
        ratio(
            "generation at 512 tokens: reference's time over ours",
            (&at_512, REFERENCE),
            (&at_512, OURS),
            Bound::AtLeast(20.0),
        ),
        Target {
            what: "generation after 128 to 65,536 tokens: largest over smallest".to_owned(),
            quotient: Quotient::Spread(flat.clone()),
            bound: Bound::AtMost(1.1),
        },
        Target {
            what: "generation, batch 64: tokens/s over batch 1".to_owned(),
            quotient: Quotient::Ratio {
                over: any(OURS),
                under: At { works: vec![many], sides: OURS },
            },
            bound: Bound::AtLeast(10.0),
        },
    ]
}

fn ratio(
    what: impl Into<String>,
    over: (&str, &'static [&'static str]),
    under: (&str, &'static [&'static str]),
    bound: Bound,
) -> Target {
    let at = |(work, sides): (&str, _)| At { works: vec![work.to_owned()], sides };
    Target {
        what: what.into(),
        quotient: Quotient::Ratio { over: at(over), under: at(under) },
        bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::invented;

    #[test]
    fn every_target_has_a_figure_in_a_whole_run() {
        let results = invented(|work, _| {
            // Memory that grows by 3 bytes a token.
            work.strip_prefix("memory/growth/")
                .map_or(1.0, |t| 100.0 + 3.0 * t.parse::<f64>().unwrap())
        });
        for target in targets() {
            let value = target.value(&results).unwrap_or_else(|| panic!("{}", target.what));
            assert!((value - 1.0).abs() < 1e-9, "{}: {value}", target.what);
        }
        assert_eq!(targets().iter().filter(|t| t.value(&Results::default()).is_some()).count(), 0);
    }

    #[test]
    fn bounds_have_a_direction() {
        let target = |bound| Target { bound, ..targets().remove(0) };
        assert!(
            target(Bound::AtLeast(0.9)).is_met(0.9) && !target(Bound::AtLeast(0.9)).is_met(0.8)
        );
        assert!(target(Bound::AtMost(1.3)).is_met(1.3) && !target(Bound::AtMost(1.3)).is_met(1.4));
    }

    #[test]
    fn the_best_of_the_reference_counts() {
        let results = invented(|_, side| match side {
            "reference" => 4.0,
            "reference-checkpointed" => 2.0,
            _ => 1.0,
        });
        let what = "training step, max heads: reference's time over ours";
        let target = targets().into_iter().find(|target| target.what == what).unwrap();
        assert_eq!(target.value(&results), Some(2.0));
    }
}
