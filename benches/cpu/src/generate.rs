//! Generation: token after token on the state, after a prompt.

use crate::bandwidth::{Access, Bandwidth, Stores};
use crate::error::{Problem, Result};
use crate::layer::values;
use crate::work::Work;
use gateloop_nn::WeightKind;
use gateloop_scan::Tolerance;
use gateloop_transformer::config::ModelConfig;
use gateloop_transformer::model::{DecodeState, Model};
use tch::{Device, Kind, Tensor};

fn model(weights: WeightKind) -> Result<Model> {
    let config = ModelConfig { dim: 512, depth: 6, ..ModelConfig::default() };
    let mut model = Model::seeded(&config, Device::Cpu, 42)?;
    model.quantize(weights)?;
    Ok(model)
}

/// Tokens of a run.
const TOKENS: usize = 8;
/// Tokens of a prompt that are read at once.
const PIECE: i64 = 4096;
/// Tokens of the prompt that the check reads one by one.
const STEPPED: i64 = 16;

/// A model in the middle of `batch` texts.
pub(crate) struct Generate {
    model: Model,
    state: DecodeState,
    /// [B, V]
    logits: Tensor,
}

impl Generate {
    /// Reads a prompt and checks that single steps say what the sequence mode says.
    pub(crate) fn checked(weights: WeightKind, batch: usize, prompt: usize) -> Result<Self> {
        let model = model(weights)?;
        let size = [batch as i64, prompt as i64];
        let ids = Tensor::f_randint(256, size, (Kind::Int64, Device::Cpu))?;
        tch::no_grad(|| {
            let mut whole = model.initial_state(batch as i64);
            let at_once = read(&model, &ids, &mut whole)?;
            let stepped = STEPPED.min(prompt as i64 - 1);
            let mut state = model.initial_state(batch as i64);
            let most = ids.f_narrow(1, 0, prompt as i64 - stepped)?;
            let mut logits = read(&model, &most, &mut state)?;
            for t in prompt as i64 - stepped..prompt as i64 {
                logits = model.step(&ids.f_select(1, t)?, &mut state)?;
            }
            let tolerance = Tolerance::of::<f32>(512 * 6 + prompt).times(4.0);
            let compared = tolerance.check_uniform(&values(&logits)?, &values(&at_once)?);
            compared.map_err(|mismatch| Problem::Wrong(mismatch.to_string()))?;
            Ok(Self { model, state, logits })
        })
    }
}

fn read(model: &Model, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor> {
    let mut logits = Tensor::new();
    for piece in ids.f_split(PIECE, 1)? {
        logits = model.prefill(&piece, state)?;
    }
    Ok(logits)
}

impl Work for Generate {
    fn run(&mut self) -> Result<()> {
        tch::no_grad(|| {
            for _ in 0..TOKENS {
                let next = self.logits.f_argmax(-1, false)?;
                self.logits = self.model.step(&next, &mut self.state)?;
            }
            Ok(())
        })
    }

    /// Tokens of all texts.
    fn units(&self) -> f64 {
        self.logits.size()[0] as f64 * TOKENS as f64
    }
}

/// Reads as much memory as the weights take: once a step, whatever the batch.
pub(crate) fn read_of_weights(weights: WeightKind, batch: usize) -> Result<Box<dyn Work>> {
    let elements = model(weights)?.bytes_per_step() / size_of::<f32>();
    let read = Bandwidth::new(&[Access::Read], Stores::Ordinary, elements)?;
    Ok(Box::new(ReadWork { read, batch: batch as f64 }))
}

struct ReadWork {
    read: Bandwidth,
    batch: f64,
}

impl Work for ReadWork {
    fn run(&mut self) -> Result<()> {
        self.read.run()
    }

    fn units(&self) -> f64 {
        self.batch
    }
}
