//! The way of a GPU through the layer, as far as a CPU can go it: where the operator is libtorch's own operations.

use super::*;
use crate::linear::side_by_side;
use tch::Device;
use tch::{Kind, nn};

const DIM: i64 = 6;

/// Output, last state, and the gradients of x and of all parameters.
fn run(
    vs: &nn::VarStore,
    layer: &GateLoop,
    x: &Tensor,
    forward: impl Fn(LayerInput<'_>) -> Result<(Tensor, Tensor)>,
) -> Result<Vec<(String, Tensor)>> {
    let x = x.detach().set_requires_grad(true);
    let (y, state) = forward(LayerInput::from(&x))?;
    assert_eq!(y.size(), [2, 70, layer.config.dim]);
    let loss = y.f_square()?.f_sum(Kind::Double)?.f_add(&state.f_abs()?.f_sum(Kind::Double)?)?;
    let mut variables: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let leaves: Vec<&Tensor> = [&x].into_iter().chain(variables.iter().map(|(_, t)| t)).collect();
    let grads = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
    let names = ["x".to_owned()].into_iter().chain(variables.iter().map(|(name, _)| name.clone()));
    let outputs = [("y".to_owned(), y.detach()), ("state".to_owned(), state.detach())];
    Ok(outputs.into_iter().chain(names.zip(grads)).collect())
}

#[test]
fn projections_side_by_side_change_nothing() -> Result<()> {
    let base = GateLoopConfig { heads: Some(2), ..GateLoopConfig::new(DIM) };
    let direct = GateLoopConfig {
        heads: None,
        direct_kv: true,
        form: Form::Chunkwise,
        transition_bias: false,
        ..base.clone()
    };
    let plain = GateLoopConfig {
        swish_gating: false,
        frac_gradient_state_transition: 1.0,
        recompute: true,
        ..base.clone()
    };
    for config in [GateLoopConfig { sub_ln: true, ..base.clone() }, base, direct, plain] {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let layer = config.init(&vs.root())?;
        vs.double();
        let x = Tensor::randn([2, 70, DIM], (Kind::Double, Device::Cpu));
        let transition = config.transition;
        let expected = run(&vs, &layer, &x, |input| layer.run(input, None, transition))?;
        let ours = run(&vs, &layer, &x, |input| {
            let projected = side_by_side(&layer.sides(), &input.tensor()?)?;
            let Some(projected) = projected else { panic!("trained maps lie side by side") };
            layer.run_side_by_side(&projected, None, transition, input)
        })?;
        for ((name, ours), (_, expected)) in ours.iter().zip(&expected) {
            let off = (ours - expected).norm().double_value(&[]);
            let size = expected.norm().double_value(&[]);
            assert!(off <= 1e-11 * size, "{config:?} {name}: {off:e} of {size:e}");
        }
    }
    Ok(())
}
