//! How long a layer remembers: the magnitude of its gates.

use crate::common::{TestResult, assert_close, tensor, tolerance, values};
use crate::variants::{DIM, build};
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{GateLoopConfig, NnError, SimpleGateLoopConfig};
use tch::{Kind, Tensor};

/// ln sigmoid(x)
fn log_sigmoid(x: f64) -> f64 {
    -(-x).exp().ln_1p()
}

#[test]
fn of_a_gate_loop_it_is_the_sigmoid_of_the_size_of_z() -> TestResult {
    let x = tensor(&[2, 5, DIM], Kind::Double, 95);
    for transition in [TransitionMode::Complex, TransitionMode::Real, TransitionMode::Identity] {
        let config = GateLoopConfig { heads: Some(3), transition, ..GateLoopConfig::new(DIM) };
        let (vs, layer) = build(|path| config.init(path));
        let parameters = vs.variables();
        let z = x.linear(&parameters["to_a.0.weight"], Some(&parameters["to_a.0.bias"]));
        let expected: Vec<f64> = values(&z)
            .chunks(2)
            .map(|z| match transition {
                TransitionMode::Complex => log_sigmoid(z[0].hypot(z[1])),
                TransitionMode::Real => log_sigmoid(z[0].abs()),
                TransitionMode::Identity => 0.0,
            })
            .collect();
        let expected = Tensor::from_slice(&expected).view([2, 5, 3]);
        let actual = layer.log_gate_magnitude(&x)?;
        assert_close("ln|a|", &actual, &expected, tolerance(Kind::Double, DIM));
    }
    Ok(())
}

#[test]
fn of_a_simple_gate_loop_it_is_the_sigmoid_of_z() -> TestResult {
    let x = tensor(&[2, 5, DIM], Kind::Double, 96);
    let config = SimpleGateLoopConfig { prenorm: false, ..SimpleGateLoopConfig::new(DIM) };
    let (vs, layer) = build(|path| config.init(path));
    let z = x.linear(&vs.variables()["to_qkva.0.weight"], None::<&Tensor>).narrow(-1, 2 * DIM, DIM);
    let expected: Vec<f64> = values(&z).into_iter().map(log_sigmoid).collect();
    let expected = Tensor::from_slice(&expected).view([2, 5, DIM]);
    let actual = layer.log_gate_magnitude(&x)?;
    assert_close("ln a", &actual, &expected, tolerance(Kind::Double, DIM));
    Ok(())
}

#[test]
fn of_another_width_it_is_refused() {
    let x = tensor(&[2, 5, DIM + 1], Kind::Double, 97);
    let (_, layer) = build(|path| GateLoopConfig::new(DIM).init(path));
    let (_, simple) = build(|path| SimpleGateLoopConfig::new(DIM).init(path));
    for result in [layer.log_gate_magnitude(&x), simple.log_gate_magnitude(&x)] {
        assert!(matches!(result, Err(NnError::Shape { operand: "x", .. })));
    }
}
