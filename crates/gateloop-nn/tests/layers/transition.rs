//! The state transition against the reference's formula.

use crate::common::{assert_close, gradients, leaf, tensor, tolerance, values, weighted_sum};
use gateloop_nn::Result;
use gateloop_nn::gate_loop::{StateTransition, TransitionMode};
use num_complex::Complex;
use tch::{Kind, Tensor};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// a for every pair of z, by the function, as two parts each.
fn by_hand(z: &Tensor, a: impl Fn(Complex<f64>) -> Complex<f64>) -> Vec<f64> {
    let z = values(z);
    z.chunks(2).map(|pair| a(Complex::new(pair[0], pair[1]))).flat_map(|a| [a.re, a.im]).collect()
}

#[track_caller]
fn check(mode: TransitionMode, a: impl Fn(Complex<f64>) -> Complex<f64>) -> Result<()> {
    let z = tensor(&[2, 5, 3, 2], Kind::Double, 80) * 4.0;
    let decay = StateTransition::from_pre_activation(&z, mode)?.decay()?;
    let expected = Tensor::from_slice(&by_hand(&z, a)).view([2, 5, 3, 2]);
    // Logarithm, exponential, sine and cosine round about once each.
    assert_close("a", &decay.view_as_real(), &expected, tolerance(Kind::Double, 4));
    Ok(())
}

#[test]
fn complex() -> Result<()> {
    check(TransitionMode::Complex, |z| Complex::from_polar(sigmoid(z.norm()), z.arg()))
}

#[test]
fn real() -> Result<()> {
    check(TransitionMode::Real, |z| Complex::new(sigmoid(z.re.abs()).copysign(z.re), 0.0))
}

#[test]
fn identity() -> Result<()> {
    check(TransitionMode::Identity, |_| Complex::new(1.0, 0.0))
}

#[test]
fn at_zero_it_is_one_half_and_its_gradient_is_finite() -> Result<()> {
    for kind in [Kind::Float, Kind::Double] {
        for mode in [TransitionMode::Complex, TransitionMode::Real] {
            let z = leaf(&Tensor::zeros([1, 1, 2, 2], (kind, tch::Device::Cpu)));
            let transition = StateTransition::from_pre_activation(&z, mode)?;
            let decay = transition.decay()?;
            let half = Tensor::from_slice(&[0.5, 0.0, 0.5, 0.0]).view([1, 1, 2, 2]);
            assert_close("a", &decay.view_as_real(), &half, tolerance(kind, 1));
            let dz = gradients(&weighted_sum(&decay, 81), &[&z]);
            assert!(values(&dz[0]).iter().all(|x| x.is_finite()), "{mode:?}, {kind:?}");
        }
    }
    Ok(())
}

#[test]
fn the_log_magnitude_is_never_positive() -> Result<()> {
    let z = tensor(&[1, 50, 4, 2], Kind::Float, 82) * 100.0;
    for mode in [TransitionMode::Complex, TransitionMode::Real, TransitionMode::Identity] {
        let transition = StateTransition::from_pre_activation(&z, mode)?;
        assert!(values(transition.log_magnitude()).iter().all(|&x| x <= 0.0), "{mode:?}");
        let sigmoid_of_zero = 0.5_f64.ln();
        let lowest = values(transition.log_magnitude()).into_iter().fold(0.0, f64::min);
        assert!(lowest >= sigmoid_of_zero, "{mode:?}: |a| below one half");
    }
    Ok(())
}
