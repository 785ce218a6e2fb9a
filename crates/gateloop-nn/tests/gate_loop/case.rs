//! Operands of the operator, and what may be asked of them.

use crate::common::{
    assert_close, assert_close_at_scale, gradients, largest, leaf, tensor, tolerance, weighted_sum,
};
use gateloop_nn::Result;
use gateloop_nn::gate_loop::{Form, Operands, StateTransition, gate_loop};
use gateloop_scan::Tolerance;
use std::f64::consts::PI;
use tch::{Kind, Tensor};

/// The shortest chunk of the chunkwise form.
const MIN_CHUNK: i64 = 64;

/// [B, T, heads x head_dim]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) batch: i64,
    pub(crate) seqlen: i64,
    pub(crate) heads: i64,
    pub(crate) head_dim: i64,
}

/// The operands as leaves: q, k, v, ln|a|, arg a and perhaps a state.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) size: Size,
    pub(crate) leaves: Vec<Tensor>,
}

pub(crate) const NAMES: [&str; 6] = ["q", "k", "v", "log magnitude", "phase", "state"];

impl Case {
    /// |a| from 0.5 to 1, as in the layer, phases all around the circle, a state.
    pub(crate) fn new(size: Size) -> Self {
        let Size { batch, seqlen, heads, .. } = size;
        let a = |seed| tensor(&[batch, seqlen, heads], Kind::Double, seed);
        let log_magnitude = (a(4) * 0.25 + 0.75).log();
        Self::with_transition(size, &log_magnitude, &(a(5) * PI))
    }

    /// A given transition, broadcast to [B, T, H], and random operands.
    pub(crate) fn with_transition(size: Size, log_magnitude: &Tensor, phase: &Tensor) -> Self {
        let Size { batch, seqlen, heads, head_dim } = size;
        let x = |seed| tensor(&[batch, seqlen, heads * head_dim], Kind::Double, seed);
        let a = |x: &Tensor| x.expand([batch, seqlen, heads], false);
        let state = tensor(&[batch, heads, head_dim, head_dim], Kind::ComplexDouble, 6);
        let operands = [x(1), x(2), x(3), a(log_magnitude), a(phase), state];
        Self { size, leaves: operands.iter().map(leaf).collect() }
    }

    /// The same operands, without a state.
    pub(crate) fn stateless(self) -> Self {
        Self { leaves: self.leaves.into_iter().take(5).collect(), ..self }
    }

    /// The same numbers in another precision, as new leaves.
    pub(crate) fn to_kind(&self, kind: Kind) -> Self {
        let complex = if kind == Kind::Float { Kind::ComplexFloat } else { Kind::ComplexDouble };
        let convert = |x: &Tensor| leaf(&x.to_kind(if x.is_complex() { complex } else { kind }));
        Self { size: self.size, leaves: self.leaves.iter().map(convert).collect() }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.leaves[0].kind()
    }

    pub(crate) fn run(&self, form: Form) -> Result<(Tensor, Tensor)> {
        run(&self.leaves, form)
    }

    /// The gradients of a loss in which every element of y and of the last state has a weight.
    pub(crate) fn gradients(&self, form: Form) -> Result<Vec<Tensor>> {
        let leaves: Vec<&Tensor> = self.leaves.iter().collect();
        Ok(gradients(&loss(&self.run(form)?), &leaves))
    }

    /// A sum over T tokens and the features of a head. The exponents and angles of a chunk are sums
    /// too: their rounding is relative to their own size, and comes back as an error of their
    /// exponential, relative to its size.
    pub(crate) fn tolerance(&self, form: Form) -> Tolerance {
        let Size { seqlen, head_dim, .. } = self.size;
        let chunk = match form {
            Form::Quadratic => seqlen,
            Form::Chunkwise | Form::Auto if head_dim > 1 => head_dim.max(MIN_CHUNK),
            Form::Chunkwise => MIN_CHUNK,
            _ => 1,
        };
        tolerance(self.kind(), seqlen * head_dim).times(1.0 + self.largest_exponent(chunk))
    }

    /// The largest modulus of a sum of ln|a| + i arg a from the start of a chunk.
    fn largest_exponent(&self, chunk: i64) -> f64 {
        let sums = |x: &Tensor, start| {
            let len = chunk.min(self.size.seqlen - start);
            x.detach().to_kind(Kind::Double).narrow(1, start, len).cumsum(1, None::<Kind>)
        };
        (0..self.size.seqlen)
            .step_by(chunk as usize)
            .map(|start| {
                let (log_a, phase) = (sums(&self.leaves[3], start), sums(&self.leaves[4], start));
                log_a.hypot(&phase).max().double_value(&[])
            })
            .fold(0.0, f64::max)
    }

    /// Compares a form with the recurrent form in double precision, in values and gradients.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, form: Form) {
        let oracle = self.to_kind(Kind::Double);
        let (y, state) = self.run(form).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (want_y, want_state) = oracle.run(Form::Recurrent).expect("the oracle runs");
        let tolerance = self.tolerance(form);
        assert_close(&format!("{what}: y"), &y, &want_y, tolerance);
        assert_close(&format!("{what}: last state"), &state, &want_state, tolerance);

        let got = self.gradients(form).unwrap_or_else(|error| panic!("{what}: {error}"));
        let want_grads = oracle.gradients(Form::Recurrent).expect("the oracle runs");
        for (i, (got, want)) in got.iter().zip(&want_grads).enumerate() {
            let what = format!("{what}: gradient of {}", NAMES[i]);
            // Those of ln|a| and arg a are sums of q dq - k dk, so they round as dq and dk do.
            let scale = [want, &want_grads[0], &want_grads[1]].map(largest);
            let scale = if NAMES[i] == "log magnitude" || NAMES[i] == "phase" {
                scale.into_iter().fold(0.0, f64::max)
            } else {
                scale[0]
            };
            assert_close_at_scale(&what, got, want, scale, tolerance);
        }
    }
}

/// Runs the operator on q, k, v, ln|a|, arg a and perhaps a state.
pub(crate) fn run(leaves: &[Tensor], form: Form) -> Result<(Tensor, Tensor)> {
    let transition = StateTransition::from_polar(&leaves[3], &leaves[4])?;
    let operands =
        Operands { q: &leaves[0], k: &leaves[1], v: &leaves[2], transition: &transition };
    gate_loop(&operands, leaves.get(5), form)
}

pub(crate) fn loss((y, state): &(Tensor, Tensor)) -> Tensor {
    weighted_sum(y, 11) + weighted_sum(state, 12)
}

/// The forms that exist for heads of this width.
pub(crate) fn forms(head_dim: i64) -> Vec<Form> {
    let mut forms = vec![Form::Recurrent, Form::Chunkwise, Form::Quadratic, Form::Auto];
    if head_dim == 1 {
        forms.push(Form::Scan);
    }
    forms
}
