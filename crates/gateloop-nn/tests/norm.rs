//! The one-pass norm against the same function in libtorch's own operations, values and gradients.

mod common;

use common::{
    TestResult, assert_bits, assert_close, assert_close_at_scale, largest, leaf, tensor, tolerance,
};
use gateloop_nn::{RmsNorm, RmsNormKind};
use tch::{Device, Kind, Tensor, nn};

fn by_libtorch(kind: RmsNormKind, x: &Tensor, gamma: &Tensor) -> Tensor {
    let scale = (x.size()[x.dim() - 1] as f64).sqrt();
    match kind {
        RmsNormKind::Clamped => {
            let length = x.norm_scalaropt_dim(2.0, [-1i64], true).clamp_min(1e-12);
            x / length * scale * gamma
        }
        RmsNormKind::Epsilon => {
            let squares = x.square().sum_dim_intlist(-1i64, true, None::<Kind>);
            x * (squares + 1e-5).rsqrt() * gamma * scale
        }
    }
}

#[test]
fn values_and_gradients_are_libtorchs() -> TestResult {
    for kind in [RmsNormKind::Clamped, RmsNormKind::Epsilon] {
        for dtype in [Kind::Float, Kind::Double] {
            for shape in [&[1, 1, 1][..], &[2, 3, 5], &[65, 7], &[3, 64, 33], &[130, 16]] {
                let dim = shape[shape.len() - 1];
                let mut vs = nn::VarStore::new(Device::Cpu);
                let norm = RmsNorm::of_kind(&vs.root(), dim, kind)?;
                vs.set_kind(dtype);
                let mut gamma = vs.variables().remove("gamma").ok_or("no gamma")?;
                tch::no_grad(|| gamma.copy_(&tensor(&[dim], dtype, 3)));
                let x = leaf(&tensor(shape, dtype, 1));
                let weights = tensor(shape, dtype, 2);

                let y = norm.forward(&x)?;
                let expected = by_libtorch(kind, &x, &gamma);
                // A sum over the features, and its root.
                let allowed = tolerance(dtype, dim).times(2.0);
                assert_close("y", &y, &expected, allowed);
                let got = Tensor::f_run_backward(
                    &[(&y * &weights).sum(dtype)],
                    &[&x, &gamma],
                    false,
                    false,
                )?;
                let want = Tensor::f_run_backward(
                    &[(&expected * &weights).sum(dtype)],
                    &[&x, &gamma],
                    false,
                    false,
                )?;
                let rows = x.numel() as i64 / dim;
                let allowed = tolerance(dtype, rows.max(dim)).times(4.0);
                // Where a row has one feature its two terms cancel.
                let size = &weights * &gamma * (dim as f64).sqrt()
                    / x.norm_scalaropt_dim(2.0, [-1i64], true);
                assert_close_at_scale("dx", &got[0], &want[0], largest(&size), allowed);
                assert_close("dgamma", &got[1], &want[1], allowed);
            }
        }
    }
    Ok(())
}

#[test]
fn a_row_of_zeros_stays_and_has_a_gradient() -> TestResult {
    let vs = nn::VarStore::new(Device::Cpu);
    let norm = RmsNorm::new(&vs.root(), 4)?;
    let x = leaf(&Tensor::zeros([1, 4], (Kind::Float, Device::Cpu)));
    let y = norm.forward(&x)?;
    assert_bits("y", &y, &Tensor::zeros([1, 4], (Kind::Float, Device::Cpu)));
    y.sum(Kind::Float).backward();
    // The length is clamped, so the norm is a product with 2 / 1e-12.
    let expected = Tensor::full([1, 4], 2e12, (Kind::Float, Device::Cpu));
    assert_close("dx", &x.grad(), &expected, tolerance(Kind::Float, 4));
    Ok(())
}

#[test]
fn threads_change_nothing() -> TestResult {
    let vs = nn::VarStore::new(Device::Cpu);
    let norm = RmsNorm::new(&vs.root(), 48)?;
    let x = leaf(&tensor(&[1000, 48], Kind::Float, 1));
    let run = || -> Result<_, Box<dyn std::error::Error>> {
        let y = norm.forward(&x)?;
        let grads = Tensor::f_run_backward(&[y.square().sum(Kind::Float)], &[&x], false, false)?;
        Ok((y, grads[0].shallow_clone()))
    };
    let threads = tch::get_num_threads();
    let many = run()?;
    tch::set_num_threads(1);
    let one = run()?;
    tch::set_num_threads(threads);
    assert_bits("y", &many.0, &one.0);
    assert_bits("dx", &many.1, &one.1);
    Ok(())
}
