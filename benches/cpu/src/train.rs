//! A training step, and the matrix products in it.

use crate::error::{Problem, Result};
use crate::product::{Product, ProductPart, Products};
use crate::work::Work;
use gateloop_scan::Tolerance;
use gateloop_transformer::config::{DataConfig, ModelConfig, Source, Synthetic, TrainConfig};
use gateloop_transformer::data::{Corpus, Split, WindowSampler};
use gateloop_transformer::model::Model;
use gateloop_transformer::train::Trainer;
use tch::{Device, Kind, Tensor};

/// What is trained on what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrainShape {
    model: ModelConfig,
    batch: usize,
    tokens: usize,
    /// What a step's time is divided by.
    units: f64,
}

const SEED: u64 = 42;

/// Beyond this length the gradient is not checked in double precision: it would need more memory than
/// the step.
const GRADIENT_CHECKED: usize = 4096;

impl TrainShape {
    /// The model of the comparison with the reference, by its heads.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let heads = match name {
            "max-heads" => None,
            _ => Some(name.strip_suffix("-heads")?.parse().ok()?),
        };
        let model =
            ModelConfig { dim: 512, depth: 6, gate_loop_heads: heads, ..ModelConfig::default() };
        Some(Self { model, batch: 4, tokens: 256, units: 1.0 })
    }

    /// One block of the model of the other steps on one sequence, timed by the token.
    pub(crate) fn growth(tokens: usize) -> Self {
        let model = ModelConfig { dim: 512, depth: 1, ..ModelConfig::default() };
        Self { model, batch: 1, tokens, units: tokens as f64 }
    }

    /// The step: loss, backward pass, clipping, optimiser.
    pub(crate) fn step(self, check: bool) -> Result<Box<dyn Work>> {
        if check {
            self.check()?;
        }
        let train = TrainConfig {
            batch_size: self.batch,
            seq_len: self.tokens,
            grad_accum: 1,
            ..TrainConfig::default()
        };
        let source = Source::Synthetic(Synthetic::Text);
        let (train_bytes, valid_bytes) = (Some(1 << 20), Some(1 << 16));
        let data = DataConfig { source, train_bytes, valid_bytes, ..DataConfig::default() };
        let corpus = Corpus::open(&data)?;
        let sampler = WindowSampler::new(&corpus, Split::Train, self.tokens, SEED)?;
        let model = Model::seeded(&self.model, Device::Cpu, SEED)?;
        let trainer = Trainer::new(model, sampler, &train)?;
        Ok(Box::new(TrainWork { trainer, units: self.units }))
    }

    /// Every matrix of the model times every token, and the two products of its backward pass.
    pub(crate) fn products(self) -> Result<Box<dyn Work>> {
        let model = Model::seeded(&self.model, Device::Cpu, SEED)?;
        let rows = self.batch * self.tokens;
        let products = matrices(&model)
            .map(|[columns, inner]| Product::new([rows, inner, columns], &ProductPart::ALL))
            .collect::<Result<_>>()?;
        Ok(Box::new(Products(products)))
    }

    /// Loss and size of the gradient beside double precision.
    fn check(&self) -> Result<()> {
        let mut model = Model::seeded(&self.model, Device::Cpu, SEED)?;
        let size = [self.batch as i64, self.tokens as i64 + 1];
        let windows = Tensor::f_randint(256, size, (Kind::Int64, Device::Cpu))?;
        let gradient = self.tokens <= GRADIENT_CHECKED;
        let single = measure(&model, &windows, gradient)?;
        model.set_kind(Kind::Double);
        let double = measure(&model, &windows, gradient)?;
        // The longest sums: over all tokens, and over the inner width of a token.
        let longest = self.model.dim * self.tokens.max(self.model.ff_mult);
        let tolerance = Tolerance::of::<f32>(self.model.depth * longest);
        for (single, double) in single.iter().zip(&double) {
            let compared = tolerance.check_uniform(&[*single], &[*double]);
            compared.map_err(|mismatch| Problem::Wrong(mismatch.to_string()))?;
        }
        Ok(())
    }
}

/// [out, in] of the matrices that every token is multiplied with; a look-up in the embedding is none.
fn matrices(model: &Model) -> impl Iterator<Item = [usize; 2]> {
    model.parameters().into_iter().filter_map(|(name, parameter)| match parameter.size()[..] {
        [out, inner] if !name.starts_with("token_emb") => Some([out as usize, inner as usize]),
        _ => None,
    })
}

/// The loss and, if asked for, the norm of its gradient.
fn measure(model: &Model, windows: &Tensor, gradient: bool) -> Result<Vec<f64>> {
    if !gradient {
        return Ok(vec![tch::no_grad(|| model.loss(windows))?.f_double_value(&[])?]);
    }
    let loss = model.loss(windows)?;
    let parameters: Vec<Tensor> = model.parameters().into_values().collect();
    let mut square = 0.0;
    for grad in Tensor::f_run_backward(&[&loss], &parameters, false, false)? {
        square += grad.f_norm()?.f_double_value(&[])?.powi(2);
    }
    Ok(vec![loss.f_double_value(&[])?, square.sqrt()])
}

struct TrainWork {
    trainer: Trainer,
    units: f64,
}

impl Work for TrainWork {
    fn run(&mut self) -> Result<()> {
        self.trainer.train_step()?;
        Ok(())
    }

    fn units(&self) -> f64 {
        self.units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_names() {
        assert_eq!(TrainShape::named("max-heads").unwrap().model.gate_loop_heads, None);
        assert_eq!(TrainShape::named("8-heads").unwrap().model.gate_loop_heads, Some(8));
        assert_eq!(TrainShape::named("most-heads"), None);
        assert_eq!(TrainShape::named("8"), None);
    }

    #[test]
    fn a_short_step_is_right_and_runs() {
        let mut step = TrainShape::growth(5).step(true).unwrap();
        step.run().unwrap();
        assert_eq!(step.units(), 5.0);
    }

    #[test]
    fn the_products_are_those_of_the_matrices() {
        let model = Model::seeded(&TrainShape::growth(5).model, Device::Cpu, SEED).unwrap();
        assert!(matrices(&model).any(|shape| shape == [256, 512]), "the logits");
        let embedding = 256 * 512;
        let all: usize = matrices(&model).map(|[out, inner]| out * inner).sum();
        let parameters: usize = model.parameters().values().map(Tensor::numel).sum();
        assert!(all < parameters - embedding && all * 10 > parameters * 7);
        TrainShape::growth(5).products().unwrap().run().unwrap();
    }
}
