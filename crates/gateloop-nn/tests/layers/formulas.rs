//! Norms and the feed-forward layer against their formulas, number by number.

use crate::common::{
    TestResult, assert_close, gradients, leaf, tensor, tolerance, values, weighted_sum,
};
use crate::variants::{DIM, build};
use gateloop_nn::{Bias, NnError, NormPlacement, Residual};
use gateloop_nn::{FeedForwardConfig, LayerNorm, Linear, RmsNorm, SequenceLayer};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

fn x() -> Tensor {
    tensor(&[2, 3, DIM], Kind::Double, 90)
}

fn parameter(vs: &VarStore, name: &str) -> Vec<f64> {
    values(&vs.variables()[name])
}

/// Applies a function to every token of x.
fn by_token(x: &Tensor, f: impl Fn(&[f64]) -> Vec<f64>) -> Tensor {
    let dim = x.size()[x.dim() - 1] as usize;
    let y: Vec<f64> = values(x).chunks(dim).flat_map(f).collect();
    Tensor::from_slice(&y).view_as(x)
}

/// W x + b
fn affine(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let rows = weight.chunks(x.len()).zip(bias);
    rows.map(|(row, b)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b).collect()
}

#[test]
fn rms_norm() -> TestResult {
    let (vs, norm) = build(|path| RmsNorm::new(path, DIM));
    let gamma = parameter(&vs, "gamma");
    let expected = by_token(&x(), |x| {
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter().zip(&gamma).map(|(x, g)| x / length * (DIM as f64).sqrt() * g).collect()
    });
    assert_close("y", &norm.forward(&x())?, &expected, tolerance(Kind::Double, DIM));
    Ok(())
}

#[test]
fn rms_norm_of_nothing_is_finite() -> TestResult {
    for kind in [Kind::Float, Kind::Double] {
        let (mut vs, norm) = build(|path| RmsNorm::new(path, DIM));
        vs.set_kind(kind);
        let x = leaf(&Tensor::zeros([1, 2, DIM], (kind, tch::Device::Cpu)));
        let y = norm.forward(&x)?;
        assert!(values(&y).iter().all(|&y| y == 0.0), "{kind:?}");
        let gamma = &vs.variables()["gamma"];
        for gradient in gradients(&weighted_sum(&y, 91), &[&x, gamma]) {
            assert!(values(&gradient).iter().all(|x| x.is_finite()), "{kind:?}");
        }
    }
    Ok(())
}

#[test]
fn layer_norm() -> TestResult {
    let (vs, norm) = build(|path| LayerNorm::new(path, DIM));
    let (weight, bias) = (parameter(&vs, "weight"), parameter(&vs, "bias"));
    let expected = by_token(&x(), |x| {
        let mean = x.iter().sum::<f64>() / DIM as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DIM as f64;
        let normed = x.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
        normed.zip(weight.iter().zip(&bias)).map(|(x, (w, b))| x * w + b).collect()
    });
    assert_close("y", &norm.forward(&x())?, &expected, tolerance(Kind::Double, DIM));
    Ok(())
}

#[test]
fn feed_forward() -> TestResult {
    let (vs, layer) =
        build(|path| FeedForwardConfig { mult: 3, ..FeedForwardConfig::new(DIM) }.init(path));
    let [w1, b1, w2, b2] =
        ["0.weight", "0.bias", "2.weight", "2.bias"].map(|name| parameter(&vs, name));
    let expected = by_token(&x(), |x| {
        let hidden: Vec<f64> = affine(x, &w1, &b1).into_iter().map(gelu).collect();
        affine(&hidden, &w2, &b2)
    });
    // Two sums, over D and 3 D features.
    assert_close("y", &layer.forward(&x())?, &expected, tolerance(Kind::Double, 4 * DIM));
    Ok(())
}

/// x Phi(x) with the normal distribution function Phi(x) = (1 + erf(x / sqrt 2)) / 2.
fn gelu(x: f64) -> f64 {
    x * 0.5 * (1.0 + erf(x / 2.0_f64.sqrt()))
}

/// The Maclaurin series of the error function, to the last digit for the small arguments here.
fn erf(x: f64) -> f64 {
    let mut power = x; // (-1)^n x^(2n+1) / n!
    let mut sum = x;
    for n in 1..60 {
        let n = f64::from(n);
        power *= -x * x / n;
        sum += power / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn residual() -> TestResult {
    let config = FeedForwardConfig { mult: 2, ..FeedForwardConfig::new(DIM) };
    let (vs, pre) =
        build(|path| Residual::new(path, DIM, NormPlacement::default(), |path| config.init(path)));
    let gamma = parameter(&vs, "norm.gamma");
    let normed = by_token(&x(), |x| {
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter().zip(&gamma).map(|(x, g)| x / length * (DIM as f64).sqrt() * g).collect()
    });
    let expected = pre.layer().forward(&normed)? + x();
    assert_close("pre", &pre.forward(&x())?, &expected, tolerance(Kind::Double, 4 * DIM));

    let (vs, post) =
        build(|path| Residual::new(path, DIM, NormPlacement::Post, |path| config.init(path)));
    let sum = post.layer().forward(&x())? + x();
    let [weight, bias] = ["norm.weight", "norm.bias"].map(|name| &vs.variables()[name] * 1.0);
    let expected = sum.layer_norm([DIM], Some(weight), Some(bias), 1e-5, false);
    assert_close("post", &post.forward(&x())?, &expected, tolerance(Kind::Double, 4 * DIM));
    Ok(())
}

#[test]
fn linear() -> TestResult {
    let (vs, map) = build(|path| Linear::new(path, DIM, 4, Bias::With));
    let (weight, bias) = (parameter(&vs, "weight"), parameter(&vs, "bias"));
    let token = tensor(&[DIM], Kind::Double, 92);
    let expected = Tensor::from_slice(&affine(&values(&token), &weight, &bias));
    assert_close("y", &map.forward(&token)?, &expected, tolerance(Kind::Double, DIM));
    let wrong = map.forward(&tensor(&[2, DIM + 1], Kind::Double, 93));
    assert!(matches!(wrong, Err(NnError::Torch(_))), "{wrong:?}");
    Ok(())
}
