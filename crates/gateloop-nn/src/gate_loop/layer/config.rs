//! What a layer is built from.

use super::GateLoop;
use crate::error::{NnError, Result};
use crate::gate_loop::operator::Form;
use crate::gate_loop::transition::{TransitionMode, check_fraction};
use crate::linear::{Bias, Linear};
use crate::norm::LayerNorm;
use tch::nn::Path;

/// A [`GateLoop`] layer to be built; the defaults are the reference's.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the reference's options")]
pub struct GateLoopConfig {
    /// Features of a token, D.
    pub dim: i64,
    /// Width of q, k and v; D if `None`.
    pub dim_inner: Option<i64>,
    /// Number of heads, a divisor of the inner width; the inner width itself (max heads) if `None`.
    pub heads: Option<i64>,
    /// Whether the product of key and value is projected directly, as a [`SimpleGateLoop`](crate::SimpleGateLoop) does
    /// it, rather than each of them; for max heads only, where it is one number. An ablation: the product is laid out
    /// beside keys of one, which costs a copy.
    pub direct_kv: bool,
    /// Whether the output is multiplied by SiLU of a projection of the input.
    pub swish_gating: bool,
    /// Whether a LayerNorm follows the operator.
    pub sub_ln: bool,
    /// How much of its gradient the transition's projection receives, 0 to 1: a lower learning rate
    /// for it, in effect. Values are not changed.
    pub frac_gradient_state_transition: f64,
    /// How a is computed; anything but the default is an ablation.
    pub transition: TransitionMode,
    /// Whether the transition's projection adds a constant; the JAX reference's does not.
    pub transition_bias: bool,
    /// The form of the operator in sequence mode.
    pub form: Form,
    /// Whether the operator keeps its operands only and is computed again in the backward pass: less
    /// memory for more time, the same numbers. The fused operators, with one channel a head, work like
    /// that anyway, and on the CPU so do wider heads, but for the states at the chunks' ends. Of a sequence over several
    /// ranks the states are gathered once more, in the backward pass.
    pub recompute: bool,
}

impl GateLoopConfig {
    /// The reference's defaults for a dimension: max heads, gated.
    pub fn new(dim: i64) -> Self {
        Self {
            dim,
            dim_inner: None,
            heads: None,
            direct_kv: false,
            swish_gating: true,
            sub_ln: false,
            frac_gradient_state_transition: 0.9,
            transition: TransitionMode::default(),
            transition_bias: true,
            form: Form::default(),
            recompute: false,
        }
    }

    /// Registers the parameters under `path`, with the reference's names: `to_qkv.weight` (with `direct_kv`
    /// of q and kv alone), `to_a.0.{weight,bias}`, `to_gates.0.weight`, `maybe_sub_ln.{weight,bias}`, `to_out.weight`.
    pub fn init(&self, path: &Path<'_>) -> Result<GateLoop> {
        let dim_inner = self.dim_inner.unwrap_or(self.dim);
        let heads = self.heads.unwrap_or(dim_inner);
        self.check(dim_inner, heads)?;
        let gates = self
            .swish_gating
            .then(|| Linear::new(&(path / "to_gates" / 0), self.dim, dim_inner, Bias::Without));
        let norm = self.sub_ln.then(|| LayerNorm::new(&(path / "maybe_sub_ln"), dim_inner));
        // As in the reference: an ungated layer of equal widths has no output projection.
        let projects = dim_inner != self.dim || self.swish_gating;
        let out =
            projects.then(|| Linear::new(&(path / "to_out"), dim_inner, self.dim, Bias::Without));
        let bias = if self.transition_bias { Bias::With } else { Bias::Without };
        let parts = if self.direct_kv { 2 } else { 3 };
        Ok(GateLoop {
            to_qkv: Linear::new(&(path / "to_qkv"), self.dim, parts * dim_inner, Bias::Without)?,
            to_a: Linear::new(&(path / "to_a" / 0), self.dim, 2 * heads, bias)?,
            to_gates: gates.transpose()?,
            sub_ln: norm.transpose()?,
            to_out: out.transpose()?,
            dim_inner,
            heads,
            config: self.clone(),
        })
    }

    fn check(&self, dim_inner: i64, heads: i64) -> Result<()> {
        for (key, value) in
            [("dim", self.dim), ("dim_gate_looped_attn", dim_inner), ("gate_loop_heads", heads)]
        {
            if value < 1 {
                let problem = format!("{value} is given, but at least 1 is needed");
                return Err(NnError::Config { key, problem });
            }
        }
        if dim_inner % heads != 0 {
            return Err(NnError::Config {
                key: "gate_loop_heads",
                problem: format!("{heads} heads do not divide the inner dimension {dim_inner}"),
            });
        }
        if self.direct_kv && heads != dim_inner {
            let problem = format!(
                "it needs heads of width 1, but {heads} heads share the inner dimension {dim_inner}"
            );
            return Err(NnError::Config { key: "direct_kv", problem });
        }
        check_fraction("frac_gradient_state_transition", self.frac_gradient_state_transition)
    }
}
