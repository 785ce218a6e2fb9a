//! The operator: one function, several equivalent forms.

use super::transition::{StateTransition, complex_kind};
use super::{chunkwise, recurrent, scan_form};
use crate::error::{NnError, Result};
use crate::slices::SequenceRanks;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use tch::Tensor;

/// How the operator is computed. All forms compute the same function, to within rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Form {
    /// `Scan` for heads of width 1, `Recurrent` for a single token, `Chunkwise` otherwise.
    #[default]
    Auto,
    /// Token by token: O(T) small steps. The definition, and the way to decode.
    Recurrent,
    /// A parallel scan over the states; for heads of width 1 only, where a state is one number.
    Scan,
    /// Matrix products within chunks, a scan over chunks: time and memory grow with T.
    Chunkwise,
    /// One chunk as long as the sequence, the paper's surrogate attention: O(T^2).
    Quadratic,
}

impl Form {
    /// Every form that is one, in the order of this type's documentation.
    pub const CONCRETE: [Self; 4] = [Self::Recurrent, Self::Scan, Self::Chunkwise, Self::Quadratic];

    /// The name: `auto`, `recurrent`, `scan`, `chunkwise` or `quadratic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Recurrent => "recurrent",
            Self::Scan => "scan",
            Self::Chunkwise => "chunkwise",
            Self::Quadratic => "quadratic",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By [`name`](Form::name).
impl FromStr for Form {
    type Err = NnError;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Auto].into_iter().chain(Self::CONCRETE).find(|form| form.name() == name).ok_or_else(
            || {
                let problem = format!(
                    "`{name}` is none; the forms are auto, recurrent, scan, chunkwise, quadratic"
                );
                NnError::Config { key: "form", problem }
            },
        )
    }
}

/// What the operator is applied to.
#[derive(Debug, Clone, Copy)]
pub struct Operands<'a> {
    /// Queries [B, T, H x head_dim], Float or Double.
    pub q: &'a Tensor,
    /// Keys, like `q`.
    pub k: &'a Tensor,
    /// Values, like `q`.
    pub v: &'a Tensor,
    /// The decay of each head at each token, [B, T, H].
    pub transition: &'a StateTransition,
}

/// The sizes behind the operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dims {
    pub(super) batch: i64,
    pub(super) seqlen: i64,
    pub(super) heads: i64,
    pub(super) head_dim: i64,
}

impl Dims {
    /// [B, H, head_dim, head_dim]
    pub(super) fn state(&self) -> [i64; 4] {
        [self.batch, self.heads, self.head_dim, self.head_dim]
    }
}

/// `y[t] = q[t] Re(S[t])`, `S[t] = a[t] S[t-1] + k[t]^T v[t]`, for every head.
///
/// # Shapes
/// - `state`: the state before the first token, complex [B, H, head_dim, head_dim] (the second
///   dimension from the end is that of k); zeros if `None`
/// - returns `y` [B, T, H x head_dim] and the state after the last token
///
/// Differentiable in every operand, in `state` and through both results.
pub fn gate_loop(
    operands: &Operands<'_>,
    state: Option<&Tensor>,
    form: Form,
) -> Result<(Tensor, Tensor)> {
    let dims = check(operands, state)?;
    let before = Before::State(state);
    match resolve(form, &dims)? {
        Resolved::Recurrent => recurrent::run(operands, state, &dims),
        Resolved::Scan => scan_form::run(operands, before, &dims),
        Resolved::Chunkwise(chunk_len) => chunkwise::run(operands, before, &dims, chunk_len),
    }
}

/// [`gate_loop`] of one sequence that `ranks` share, each giving its own slice of the operands, in the order of time;
/// slices may differ in length.
///
/// One all-gather forward and one backward: of one state of every rank and, forward, one decay a head. One rank alone is as
/// none.
///
/// # Shapes
/// Those of [`gate_loop`] with T the length of this rank's slice; the state is that after the slice's last token.
///
/// # Errors
/// [`NnError::Form`] for the recurrent and the quadratic form, which do not go by way of a scan; those of
/// [`scan_over_ranks`](crate::scan_over_ranks).
pub fn gate_loop_over_ranks(
    operands: &Operands<'_>,
    form: Form,
    ranks: &Arc<dyn SequenceRanks>,
) -> Result<(Tensor, Tensor)> {
    if ranks.size() <= 1 {
        return gate_loop(operands, None, form);
    }
    let dims = check(operands, None)?;
    let before = Before::Ranks(ranks);
    let needs = "the whole sequence on one rank";
    match form {
        Form::Recurrent => Err(NnError::Form { form: "recurrent", needs }),
        Form::Quadratic => Err(NnError::Form { form: "quadratic", needs }),
        // The same for slices of any length, so that all ranks gather the same.
        Form::Auto | Form::Scan if dims.head_dim == 1 => scan_form::run(operands, before, &dims),
        Form::Scan => Err(NnError::Form { form: "scan", needs: "heads of width 1" }),
        Form::Auto | Form::Chunkwise => {
            chunkwise::run(operands, before, &dims, chunkwise::chunk_len(&dims))
        }
    }
}

/// What comes before the first token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Before<'a> {
    /// A state, complex [B, H, head_dim, head_dim], or nothing.
    State(Option<&'a Tensor>),
    /// The slices of other ranks.
    Ranks(&'a Arc<dyn SequenceRanks>),
}

enum Resolved {
    Recurrent,
    Scan,
    Chunkwise(i64),
}

fn resolve(form: Form, dims: &Dims) -> Result<Resolved> {
    Ok(match form {
        Form::Auto if dims.seqlen == 1 => Resolved::Recurrent,
        Form::Auto | Form::Scan if dims.head_dim == 1 => Resolved::Scan,
        Form::Auto | Form::Chunkwise => Resolved::Chunkwise(chunkwise::chunk_len(dims)),
        Form::Recurrent => Resolved::Recurrent,
        Form::Scan => return Err(NnError::Form { form: "scan", needs: "heads of width 1" }),
        Form::Quadratic => Resolved::Chunkwise(dims.seqlen),
    })
}

fn check(operands: &Operands<'_>, state: Option<&Tensor>) -> Result<Dims> {
    let Operands { q, k, v, transition } = operands;
    let [batch, seqlen, inner] = q.size()[..] else {
        return Err(NnError::Shape {
            operand: "q",
            expected: "[B, T, H x head_dim]".into(),
            actual: q.size(),
        });
    };
    if batch < 1 || seqlen < 1 {
        return Err(NnError::Shape {
            operand: "q",
            expected: "B and T of at least 1".into(),
            actual: q.size(),
        });
    }
    for (operand, tensor) in [("k", k), ("v", v)] {
        if tensor.size() != q.size() {
            let expected = format!("the shape of `q`, {:?},", q.size());
            return Err(NnError::Shape { operand, expected, actual: tensor.size() });
        }
    }
    let parts = [("k", *k), ("v", *v), ("transition", transition.log_magnitude())];
    for (operand, tensor) in parts {
        if tensor.kind() != q.kind() {
            let (expected, actual) = ("the kind of `q`", tensor.kind());
            return Err(NnError::Kind { operand, expected, actual });
        }
    }
    let a = transition.log_magnitude().size();
    let heads = match a[..] {
        [b, t, heads] if b == batch && t == seqlen && heads >= 1 && inner % heads == 0 => heads,
        _ => {
            return Err(NnError::Shape {
                operand: "transition",
                expected: format!("[{batch}, {seqlen}, H] with H a divisor of {inner}"),
                actual: a,
            });
        }
    };
    let dims = Dims { batch, seqlen, heads, head_dim: inner / heads };
    let kind = complex_kind(q.kind())?;
    if let Some(state) = state {
        if state.size() != dims.state() {
            let expected = format!("{:?}", dims.state());
            return Err(NnError::Shape { operand: "state", expected, actual: state.size() });
        }
        if state.kind() != kind {
            return Err(NnError::Kind {
                operand: "state",
                expected: "the complex kind of `q`",
                actual: state.kind(),
            });
        }
    }
    Ok(dims)
}

/// The initial state, or zeros.
pub(super) fn state_or_zeros(state: Option<&Tensor>, q: &Tensor, dims: &Dims) -> Result<Tensor> {
    match state {
        Some(state) => Ok(state.shallow_clone()),
        None => Ok(Tensor::f_zeros(dims.state(), (complex_kind(q.kind())?, q.device()))?),
    }
}
