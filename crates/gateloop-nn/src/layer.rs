//! What every layer that mixes over time can do, and the three ways to run it.

use crate::autocast::Autocast;
use crate::cuda::Normed;
use crate::device::on_gpu;
use crate::error::{NnError, Result};
use crate::feed_forward::Gelu;
use crate::linear::{FEW_ROWS, Linear, Side, forward_all, forward_few_twice, side_by_side};
use crate::norm::RmsNorm;
use crate::pointwise::Before;
use crate::segments::Segments;
use crate::slices::SequenceRanks;
use std::cell::OnceCell;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A layer over a sequence, with the state that lets it go on after any token.
///
/// The three ways of running it agree: a sequence at once, a sequence in pieces with the state
/// handed over, and token by token.
pub trait SequenceLayer {
    /// What the layer remembers of the tokens so far. Its size does not depend on their number, except
    /// for full attention.
    type State;

    /// The state before the first token of `batch` sequences.
    fn initial_state(&self, batch: i64) -> Self::State;

    /// A whole sequence from the initial state.
    ///
    /// # Shapes
    /// - `x`: [B, T, D], T >= 1; returns [B, T, D]
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// [`forward`](Self::forward) of what may still have to be normed and may have sequences that begin inside. A layer
    /// that begins with affine maps computes the normed x again in the backward pass, where the default keeps it.
    ///
    /// # Errors
    /// [`NnError::Config`] for sequences that begin inside, if the layer knows none, and for a sequence over several
    /// ranks, if it knows nothing of ranks. The default knows neither.
    ///
    /// # Shapes
    /// - `input`: [B, T, D], T >= 1; returns [B, T, D]
    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor> {
        input.without_segments()?;
        input.without_ranks("this layer cannot be split over ranks")?;
        self.forward(&input.tensor()?)
    }

    /// A piece of a sequence, from `state`, which is moved to the end of the piece.
    ///
    /// # Shapes
    /// - `x`: [B, T, D], T >= 1; returns [B, T, D]
    fn prefill(&self, x: &Tensor, state: &mut Self::State) -> Result<Tensor>;

    /// [`prefill`](Self::prefill) of what may still have to be normed and may have sequences that begin inside.
    ///
    /// # Errors
    /// [`NnError::Config`] for a layer that knows no segments, as the default does not, and for a sequence over several
    /// ranks: a state is that of a whole sequence.
    fn prefill_of(&self, input: LayerInput<'_>, state: &mut Self::State) -> Result<Tensor> {
        input.without_segments()?;
        input.without_ranks(ONLY_FORWARD)?;
        self.prefill(&input.tensor()?, state)
    }

    /// One token.
    ///
    /// # Shapes
    /// - `x`: [B, D]; returns [B, D]
    fn step(&self, x: &Tensor, state: &mut Self::State) -> Result<Tensor>;

    /// [`step`](Self::step) of what may still have to be normed. A layer that begins with affine maps norms a token on
    /// its way into them.
    ///
    /// # Errors
    /// [`NnError::Config`] for sequences that begin inside, and for ranks: a token is one.
    ///
    /// # Shapes
    /// - `input`: [B, D]; returns [B, D]
    fn step_of(&self, input: LayerInput<'_>, state: &mut Self::State) -> Result<Tensor> {
        input.without_segments()?;
        input.without_ranks(ONLY_FORWARD)?;
        self.step(&input.tensor()?, state)
    }
}

/// Why ranks and a decoding state exclude one another.
pub(crate) const ONLY_FORWARD: &str =
    "a sequence over several ranks begins from nothing and leaves no state: use `forward_of`";

/// What a layer reads: a tensor, or one with a norm that is still to be applied.
#[derive(Debug, Clone, Copy)]
pub struct LayerInput<'a> {
    pub(crate) x: &'a Tensor,
    norm: Option<&'a RmsNorm>,
    pub(crate) segments: Option<&'a Segments>,
    pub(crate) ranks: Option<&'a Arc<dyn SequenceRanks>>,
    shortcut: Option<&'a OnceCell<Tensor>>,
}

impl<'a> From<&'a Tensor> for LayerInput<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, norm: None, shortcut: None, segments: None, ranks: None }
    }
}

impl<'a> LayerInput<'a> {
    /// norm(x).
    pub fn normed(norm: &'a RmsNorm, x: &'a Tensor) -> Self {
        Self { norm: Some(norm), ..Self::from(x) }
    }

    /// The same input with a place for x as the norm gives it back, if it does: what goes around the layer by that has its
    /// gradient added where the norm's is computed.
    pub(crate) fn with_shortcut(self, shortcut: &'a OnceCell<Tensor>) -> Self {
        Self { shortcut: Some(shortcut), ..self }
    }

    /// The same input with sequences that begin inside.
    #[must_use]
    pub fn with_segments(self, segments: Option<&'a Segments>) -> Self {
        Self { segments, ..self }
    }

    /// The sequences that begin inside, if any do.
    pub fn segments(&self) -> Option<&'a Segments> {
        self.segments
    }

    /// The same input as this rank's slice of a sequence that several ranks share, in the order of time: each is given its
    /// own slice, of any length from 1, with the segments of it. One rank alone has the whole sequence and is as none.
    ///
    /// ```
    /// use gateloop_nn::{LayerInput, Result, SequenceLayer, SequenceRanks};
    /// use std::sync::Arc;
    /// use tch::Tensor;
    ///
    /// /// This rank's outputs, [B, T of the slice, D]; each rank calls it with its own slice.
    /// fn outputs<L: SequenceLayer>(
    ///     layer: &L,
    ///     slice: &Tensor,
    ///     ranks: &Arc<dyn SequenceRanks>,
    /// ) -> Result<Tensor> {
    ///     layer.forward_of(LayerInput::from(slice).with_ranks(Some(ranks)))
    /// }
    /// ```
    #[must_use]
    pub fn with_ranks(self, ranks: Option<&'a Arc<dyn SequenceRanks>>) -> Self {
        Self { ranks: ranks.filter(|ranks| ranks.size() > 1), ..self }
    }

    /// The ranks that share the sequence, if there are several.
    pub fn ranks(&self) -> Option<&'a Arc<dyn SequenceRanks>> {
        self.ranks
    }

    /// The same input with another tensor of the same features.
    pub(crate) fn with_tensor<'b>(self, x: &'b Tensor) -> LayerInput<'b>
    where
        'a: 'b,
    {
        // What goes around the layer is the other one.
        LayerInput { x, shortcut: None, ..self }
    }

    pub(crate) fn without_ranks(&self, problem: &str) -> Result<()> {
        match self.ranks {
            None => Ok(()),
            Some(_) => Err(NnError::Config { key: "ranks", problem: problem.into() }),
        }
    }

    pub(crate) fn without_segments(&self) -> Result<()> {
        match self.segments {
            None => Ok(()),
            Some(_) => Err(NnError::Config {
                key: "segments",
                problem: "this layer knows no sequences that begin inside another".into(),
            }),
        }
    }

    /// The input itself, of x's shape.
    pub fn tensor(&self) -> Result<Tensor> {
        self.in_kind(None)
    }

    /// The input for a product, which would round it: in the kind that it would have then, where that saves a pass.
    fn for_product(&self) -> Result<Tensor> {
        let low = (Autocast::is_on() && self.x.kind() == Kind::Float).then_some(Kind::BFloat16);
        self.in_kind(low)
    }

    /// The input, in a lower kind where its norm has a kernel that gives it in that.
    fn in_kind(&self, low: Option<Kind>) -> Result<Tensor> {
        let Some(norm) = self.norm else { return Ok(self.x.shallow_clone()) };
        let Some(Normed { y, shortcut }) = norm.on_gpu(self.x, low)? else {
            return norm.forward(self.x);
        };
        if let Some(place) = self.shortcut {
            // One is enough, should a layer ask twice.
            let _ = place.set(shortcut);
        }
        Ok(y)
    }

    /// Affine maps of it: [.., out] for each.
    pub(crate) fn project(&self, maps: &[&Linear]) -> Result<Vec<Tensor>> {
        match self.norm {
            // The gradients of several products would be summed in a lower kind.
            Some(_) if on_gpu(self.x) && maps.len() == 1 => forward_all(maps, &self.for_product()?),
            Some(_) if on_gpu(self.x) => forward_all(maps, &self.tensor()?),
            Some(norm) => norm.then(maps, self.x),
            None => forward_all(maps, self.x),
        }
    }

    /// `contract` of gelu(`expand` of it), of a few tokens, whose products write what the next one reads; `None`
    /// where that does not apply.
    pub(crate) fn project_twice(&self, maps: [&Linear; 2], gelu: Gelu) -> Result<Option<Tensor>> {
        let before = match self.norm {
            Some(norm) => norm.before(),
            None => Some(Before::Nothing),
        };
        before.map_or(Ok(None), |before| forward_few_twice(maps, gelu, self.x, before))
    }

    /// Affine maps of it as one product, [.., sum of all out]; `None` where that does not pay, or does not go: on the
    /// CPU, of few tokens, where one copy more of the weights would show, and of rounded weights.
    pub(crate) fn side_by_side(&self, sides: &[Side<'_>]) -> Result<Option<Tensor>> {
        if !on_gpu(self.x) {
            return Ok(None);
        }
        let tokens: i64 = self.x.size().iter().rev().skip(1).product();
        if tokens <= FEW_ROWS as i64 {
            return Ok(None);
        }
        side_by_side(sides, &self.for_product()?)
    }
}

/// Checks that `x` is [B, T, D] with T >= 1, and returns B and T.
pub(crate) fn sequence_dims(x: &Tensor, dim: i64) -> Result<(i64, i64)> {
    match x.size()[..] {
        [batch, seqlen, d] if d == dim && batch >= 1 && seqlen >= 1 => Ok((batch, seqlen)),
        _ => Err(NnError::Shape {
            operand: "x",
            expected: format!("[B, T, {dim}] with B and T at least 1"),
            actual: x.size(),
        }),
    }
}

/// Checks that `x` is [B, D], and returns B.
pub(crate) fn token_dims(x: &Tensor, dim: i64) -> Result<i64> {
    match x.size()[..] {
        [batch, d] if d == dim && batch >= 1 => Ok(batch),
        _ => Err(NnError::Shape {
            operand: "x",
            expected: format!("[B, {dim}] with B at least 1"),
            actual: x.size(),
        }),
    }
}
