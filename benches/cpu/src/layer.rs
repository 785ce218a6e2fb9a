//! The layer `SimpleGateLoop(512)` and, beside it, its matrix products alone.

use crate::error::{Problem, Result};
use crate::key::Pass;
use crate::product::{Product, ProductPart};
use crate::work::Work;
use gateloop_nn::{SequenceLayer, SimpleGateLoop, SimpleGateLoopConfig};
use gateloop_scan::Tolerance;
use std::hint::black_box;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const DIM: usize = 512;

/// Tokens that are also computed in double precision; the layer is causal, so they stand alone.
const CHECKED: i64 = 256;

struct LayerWork {
    pass: Pass,
    layer: SimpleGateLoop,
    /// [1, T, D]
    x: Tensor,
    /// What the gradient is taken in: the input and the weights.
    inputs: Vec<Tensor>,
}

/// The layer, compared with itself in double precision.
pub(crate) fn checked(pass: Pass, tokens: usize) -> Result<Box<dyn Work>> {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = SimpleGateLoopConfig::new(DIM as i64).init(&vs.root())?;
    let x = Tensor::f_randn([1, tokens as i64, DIM as i64], (Kind::Float, Device::Cpu))?;
    let head = x.f_narrow(1, 0, CHECKED.min(tokens as i64))?.f_contiguous()?;
    let single = outputs(&layer, &head, &vs)?;
    vs.set_kind(Kind::Double);
    let double = outputs(&layer, &head.f_to_kind(Kind::Double)?, &vs)?;
    vs.set_kind(Kind::Float);
    // A product over D, then a scan over T.
    let tolerance = Tolerance::of::<f32>(DIM + CHECKED as usize).times(2.0);
    for (single, double) in single.iter().zip(&double) {
        let compared = tolerance.check_uniform(single, double);
        compared.map_err(|mismatch| Problem::Wrong(mismatch.to_string()))?;
    }
    let x = x.f_set_requires_grad(pass == Pass::Gradient)?;
    let inputs = inputs(&x, &vs);
    Ok(Box::new(LayerWork { pass, layer, x, inputs }))
}

/// The layer's only matrix, applied; and in the backward pass the two products that it causes.
pub(crate) fn product(pass: Pass, tokens: usize) -> Result<Box<dyn Work>> {
    let parts: &[ProductPart] = match pass {
        Pass::Forward => &[ProductPart::Forward],
        Pass::Gradient => &ProductPart::ALL,
    };
    Ok(Box::new(Product::new([tokens, DIM, 3 * DIM], parts)?))
}

impl Work for LayerWork {
    fn run(&mut self) -> Result<()> {
        match self.pass {
            Pass::Forward => {
                drop(black_box(tch::no_grad(|| self.layer.forward(&self.x))?));
            }
            Pass::Gradient => {
                let loss = self.layer.forward(&self.x)?.f_sum(self.x.kind())?;
                drop(black_box(Tensor::f_run_backward(&[loss], &self.inputs, false, false)?));
            }
        }
        Ok(())
    }
}

fn inputs(x: &Tensor, vs: &VarStore) -> Vec<Tensor> {
    let mut inputs = vs.trainable_variables();
    inputs.push(x.shallow_clone());
    inputs
}

/// The output and all gradients of its sum.
fn outputs(layer: &SimpleGateLoop, x: &Tensor, vs: &VarStore) -> Result<Vec<Vec<f64>>> {
    let x = x.f_detach_copy()?.f_set_requires_grad(true)?;
    let y = layer.forward(&x)?;
    let loss = y.f_sum(y.kind())?;
    let mut tensors = Tensor::f_run_backward(&[loss], &inputs(&x, vs), false, false)?;
    tensors.push(y);
    tensors.iter().map(|tensor| Ok(values(tensor)?)).collect()
}

/// All numbers of a tensor.
pub(crate) fn values(tensor: &Tensor) -> std::result::Result<Vec<f64>, tch::TchError> {
    let flat = tensor.f_detach()?.f_to_kind(Kind::Double)?.f_contiguous()?.f_view([-1])?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}
