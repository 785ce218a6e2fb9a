//! A layer with its shortcut and its norm.

use crate::error::Result;
use crate::layer::{LayerInput, SequenceLayer};
use crate::linear::{HasLinears, Linear};
use crate::norm::{LayerNorm, RmsNorm, RmsNormKind};
use std::cell::OnceCell;
use tch::Tensor;
use tch::nn::Path;

/// Where the norm stands, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// y = f(RMSNorm(x)) + x
    Pre(RmsNormKind),
    /// y = LayerNorm(f(x) + x)
    Post,
}

/// A norm in front, of the PyTorch reference's kind.
impl Default for NormPlacement {
    fn default() -> Self {
        Self::Pre(RmsNormKind::default())
    }
}

/// A layer f with a shortcut around it and a norm before f or after the sum.
///
/// Parameters: those of f under `fn`, those of the norm under `norm`.
#[derive(Debug)]
pub struct Residual<L> {
    layer: L,
    norm: Norm,
}

#[derive(Debug)]
enum Norm {
    Pre(RmsNorm),
    Post(LayerNorm),
}

impl<L: SequenceLayer> Residual<L> {
    /// Builds the layer with `init` under `path / "fn"` and the norm beside it.
    pub fn new(
        path: &Path<'_>,
        dim: i64,
        placement: NormPlacement,
        init: impl FnOnce(&Path<'_>) -> Result<L>,
    ) -> Result<Self> {
        let layer = init(&(path / "fn"))?;
        let norm_path = path / "norm";
        let norm = match placement {
            NormPlacement::Pre(kind) => Norm::Pre(RmsNorm::of_kind(&norm_path, dim, kind)?),
            NormPlacement::Post => Norm::Post(LayerNorm::new(&norm_path, dim)?),
        };
        Ok(Self { layer, norm })
    }

    /// The layer inside.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// The layer run in a way of the caller's, with the shortcut and the norm.
    pub fn around<'a>(
        &self,
        input: impl Into<LayerInput<'a>>,
        run: impl FnOnce(&L, LayerInput<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let input = input.into();
        let (x, segments, ranks) = (&input.tensor()?, input.segments, input.ranks);
        match &self.norm {
            Norm::Pre(norm) => {
                let shortcut = OnceCell::new();
                let input = LayerInput::normed(norm, x).with_shortcut(&shortcut);
                let input = input.with_segments(segments).with_ranks(ranks);
                Ok(run(&self.layer, input)?.f_add(shortcut.get().unwrap_or(x))?)
            }
            Norm::Post(norm) => {
                let input = LayerInput::from(x).with_segments(segments).with_ranks(ranks);
                norm.forward(&run(&self.layer, input)?.f_add(x)?)
            }
        }
    }
}

impl<L: HasLinears> HasLinears for Residual<L> {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.layer.linears_mut()
    }
}

impl<L: SequenceLayer> SequenceLayer for Residual<L> {
    type State = L::State;

    fn initial_state(&self, batch: i64) -> Self::State {
        self.layer.initial_state(batch)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.around(x, L::forward_of)
    }

    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor> {
        self.around(input, L::forward_of)
    }

    fn prefill(&self, x: &Tensor, state: &mut Self::State) -> Result<Tensor> {
        self.prefill_of(x.into(), state)
    }

    fn prefill_of(&self, input: LayerInput<'_>, state: &mut Self::State) -> Result<Tensor> {
        self.around(input, |layer, input| layer.prefill_of(input, state))
    }

    fn step(&self, x: &Tensor, state: &mut Self::State) -> Result<Tensor> {
        self.around(x, |layer, input| layer.step_of(input, state))
    }
}
