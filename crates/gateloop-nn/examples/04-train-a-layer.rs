//! Lesson 4: a layer learns.
//!
//! `cargo run --release -p gateloop-nn --example 04-train-a-layer`
//!
//! The task: a flag stands at a random place in the sequence; from there on the answer is the number
//! that came with it, before it is 0. It takes a memory that opens for one token and keeps.

use gateloop_nn::foreach::{self, AdamW, AdamWState};
use gateloop_nn::{
    Bias, FeedForwardConfig, GateLoopConfig, Linear, NormPlacement, Residual, Result, SequenceLayer,
};
use tch::nn::{self, Path};
use tch::{Device, Kind, Reduction, Tensor};

const DIM: i64 = 32;
const BATCH: i64 = 32;
const SEQLEN: i64 = 32;
const STEPS: usize = 400;
const REPORT_EVERY: usize = 50;
const OPTIONS: AdamW = AdamW { lr: 5e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };

/// Embeds two features, mixes over time, then over channels, and reads one number off.
struct Model {
    embed: Linear,
    mixer: Residual<gateloop_nn::GateLoop>,
    feed_forward: Residual<gateloop_nn::FeedForward>,
    read: Linear,
}

impl Model {
    fn new(path: &Path<'_>) -> Result<Self> {
        let (mixer, feed_forward) = (
            GateLoopConfig::new(DIM),
            FeedForwardConfig { mult: 2, ..FeedForwardConfig::new(DIM) },
        );
        let pre = NormPlacement::default();
        Ok(Self {
            embed: Linear::new(&(path / "embed"), 2, DIM, Bias::With)?,
            mixer: Residual::new(&(path / "mixer"), DIM, pre, |path| mixer.init(path))?,
            feed_forward: Residual::new(&(path / "ff"), DIM, pre, |path| feed_forward.init(path))?,
            read: Linear::new(&(path / "read"), DIM, 1, Bias::With)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.mixer.forward(&self.embed.forward(x)?)?;
        self.read.forward(&self.feed_forward.forward(&x)?)
    }
}

/// (number, flag) [B, T, 2] and the answer [B, T, 1].
fn batch() -> (Tensor, Tensor) {
    let numbers = Tensor::rand([BATCH, SEQLEN], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    let place = Tensor::randint(SEQLEN, [BATCH, 1], (Kind::Int64, Device::Cpu));
    let flags = numbers.zeros_like().scatter_value(1, &place, 1.0);
    let answer = (&numbers * &flags).cumsum(1, Kind::Float).unsqueeze(-1);
    (Tensor::stack(&[numbers, flags], -1), answer)
}

fn main() -> Result<()> {
    tch::manual_seed(1);
    // Tensors this small are done before a second thread has woken up.
    tch::set_num_threads(1);
    let vs = nn::VarStore::new(Device::Cpu);
    let model = Model::new(&vs.root())?;

    let params = vs.trainable_variables();
    let zeros = || params.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
    let (exp_avgs, exp_avg_sqs) = (zeros(), zeros());
    let steps: Vec<_> =
        params.iter().map(|_| Tensor::zeros([], (Kind::Float, Device::Cpu))).collect();

    println!("the answer has a variance of 1/6 or so: a model that knows nothing loses that\n");
    for step in 1..=STEPS {
        let (x, answer) = batch();
        let loss = model.forward(&x)?.mse_loss(&answer, Reduction::Mean);
        let grads = Tensor::f_run_backward(&[&loss], &params, false, false)?;
        let norm = foreach::total_norm(&grads)?;
        foreach::mul_(&grads, (1.0 / norm).min(1.0))?;
        let (params, grads, exp_avgs) = (&params[..], &grads[..], &exp_avgs[..]);
        let (exp_avg_sqs, steps) = (&exp_avg_sqs[..], &steps[..]);
        foreach::adamw_(&AdamWState { params, grads, exp_avgs, exp_avg_sqs, steps }, &OPTIONS)?;
        if step == 1 || step % REPORT_EVERY == 0 {
            println!("step {step:>3}   loss {:.4}   gradient {norm:.3}", loss.double_value(&[]));
        }
    }
    Ok(())
}
