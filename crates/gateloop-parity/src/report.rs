//! What came of a case.

use crate::compare::BEYOND;
use serde::Serialize;

/// In single precision a quantity may be off by this many times the reference's own error ..
const TIMES: f64 = 2.0;
/// .. and this much more.
const PLUS: f64 = 1e-6;
/// In double precision, where the two should differ in rounding alone.
const DOUBLE: f64 = 1e-9;

/// One compared quantity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantity {
    /// `logits`, `loss`, `grad.NAME`, `y`, `dx`, `cache` ..
    pub name: String,
    /// Relative RMS error of ours in f32 against the reference in f64.
    pub ours: f64,
    /// That of the reference in f32: the RMS over several runs.
    pub reference: f64,
    /// That of a single one of these runs.
    pub once: f64,
    /// Relative RMS error of ours in f64.
    pub ours_f64: f64,
    /// Whether both are within what is allowed.
    pub ok: bool,
}

impl Quantity {
    /// From the errors of ours, in f32 and f64, and of the reference in f32, of all runs and of one.
    pub(crate) fn new(
        name: String,
        (ours, ours_f64): (f64, f64),
        (reference, once): (f64, f64),
        exact: bool,
    ) -> Self {
        let double = if exact { DOUBLE } else { TIMES * reference + PLUS };
        let ok = ours <= TIMES * reference + PLUS && ours < BEYOND && ours_f64 <= double;
        Self { name, ours, reference, once, ours_f64, ok }
    }
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The case.
    pub case: String,
    /// `pytorch` or `jax`.
    pub framework: String,
    /// `model` or `layer`.
    pub kind: String,
    /// Everything that was compared.
    pub quantities: Vec<Quantity>,
    /// Tokens of the greedy continuation that were equal, and all.
    pub greedy: Option<(usize, usize)>,
    /// What else is wrong.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
            && self.quantities.iter().all(|quantity| quantity.ok)
            && self.greedy.is_none_or(|(equal, all)| equal == all)
    }
}
