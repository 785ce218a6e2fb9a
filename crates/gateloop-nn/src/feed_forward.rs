//! The channel mixer: two affine maps with a GELU between them.

use crate::error::{NnError, Result};
use crate::layer::{LayerInput, SequenceLayer, sequence_dims, token_dims};
use crate::lean::gelu_linear;
use crate::linear::{Bias, HasLinears, Linear};
use tch::Tensor;
use tch::nn::Path;

/// A [`FeedForward`] to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedForwardConfig {
    /// Features of a token, D.
    pub dim: i64,
    /// The inner width in multiples of D.
    pub mult: i64,
    /// The function between the two maps.
    pub gelu: Gelu,
}

/// The Gaussian error linear unit (Hendrycks and Gimpel, arXiv 1606.08415).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gelu {
    /// x Phi(x) with the error function, as in the PyTorch reference
    #[default]
    Erf,
    /// Its approximation with a hyperbolic tangent, as in the JAX reference
    Tanh,
}

impl Gelu {
    /// What libtorch calls it.
    pub(crate) fn approximation(self) -> &'static str {
        match self {
            Self::Erf => "none",
            Self::Tanh => "tanh",
        }
    }
}

impl FeedForwardConfig {
    /// The reference's defaults for a dimension.
    pub fn new(dim: i64) -> Self {
        Self { dim, mult: 4, gelu: Gelu::default() }
    }

    /// Registers `0.{weight,bias}` and `2.{weight,bias}` under `path`.
    pub fn init(&self, path: &Path<'_>) -> Result<FeedForward> {
        for (key, value) in [("dim", self.dim), ("ff_mult", self.mult)] {
            if value < 1 {
                let problem = format!("{value} is given, but at least 1 is needed");
                return Err(NnError::Config { key, problem });
            }
        }
        let inner = self.dim * self.mult;
        Ok(FeedForward {
            dim: self.dim,
            expand: Linear::new(&(path / 0), self.dim, inner, Bias::With)?,
            contract: Linear::new(&(path / 2), inner, self.dim, Bias::With)?,
            gelu: self.gelu,
        })
    }
}

/// y = W2 gelu(W1 x + b1) + b2; each token on its own.
#[derive(Debug)]
pub struct FeedForward {
    dim: i64,
    expand: Linear,
    contract: Linear,
    gelu: Gelu,
}

impl FeedForward {
    /// Both maps, of tokens of whatever shape.
    fn run(&self, input: LayerInput<'_>) -> Result<Tensor> {
        match input.project_twice([&self.expand, &self.contract], self.gelu)? {
            Some(y) => Ok(y),
            None => gelu_linear(&input.project(&[&self.expand])?[0], self.gelu, &self.contract),
        }
    }
}

impl HasLinears for FeedForward {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        vec![&mut self.expand, &mut self.contract]
    }
}

impl SequenceLayer for FeedForward {
    /// Tokens are mapped independently: there is nothing to remember.
    type State = ();

    fn initial_state(&self, _batch: i64) {}

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_of(x.into())
    }

    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor> {
        sequence_dims(input.x, self.dim)?;
        self.run(input)
    }

    fn prefill(&self, x: &Tensor, (): &mut ()) -> Result<Tensor> {
        self.forward(x)
    }

    fn step(&self, x: &Tensor, (): &mut ()) -> Result<Tensor> {
        self.step_of(x.into(), &mut ())
    }

    fn step_of(&self, input: LayerInput<'_>, (): &mut ()) -> Result<Tensor> {
        token_dims(input.x, self.dim)?;
        self.run(input)
    }
}
