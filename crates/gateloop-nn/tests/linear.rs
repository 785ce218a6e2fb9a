//! The affine map: few rows and many, weights kept in fewer bits, and what is refused.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use common::{TestResult, fill_parameters, tensor, values};
use gateloop_nn::{Bias, Linear, NnError, WeightKind, forward_all};
use gateloop_scan::Tolerance;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const ROWS: [i64; 6] = [1, 2, 7, 8, 9, 40];

fn linear(in_dim: i64, out_dim: i64) -> Linear {
    let vs = VarStore::new(Device::Cpu);
    let linear = Linear::new(&vs.root(), in_dim, out_dim, Bias::With).unwrap();
    fill_parameters(&vs);
    linear
}

fn x(rows: i64, in_dim: i64) -> Tensor {
    tensor(&[rows, in_dim], Kind::Float, 5)
}

/// The product with the trained weights in f64, and sum |x||w| for each result.
fn exact(linear: &Linear, x: &Tensor) -> (Tensor, Tensor) {
    let weight = linear.trained_weight().unwrap().detach().to_kind(Kind::Double);
    let zeros = x.zeros_like();
    let bias = tch::no_grad(|| linear.forward(&zeros)).unwrap().to_kind(Kind::Double);
    let x = x.to_kind(Kind::Double);
    (x.linear(&weight, None::<&Tensor>) + bias, x.abs().linear(&weight.abs(), None::<&Tensor>))
}

/// |actual - expected| <= bound + what f32 arithmetic rounds, element by element.
fn assert_within(actual: &Tensor, expected: &Tensor, bound: &Tensor, scale: &Tensor, terms: i64) {
    let rounding = Tolerance::of::<f32>(terms as usize).relative();
    let allowed = values(&(bound + scale * rounding + 1e-30));
    for (i, ((a, e), allowed)) in
        values(actual).iter().zip(values(expected)).zip(allowed).enumerate()
    {
        assert!((a - e).abs() <= allowed, "element {i}: {a}, expected {e} within {allowed:e}");
    }
}

#[test]
fn few_rows_and_many_give_the_exact_product() {
    for (in_dim, out_dim) in [(1, 1), (5, 3), (67, 131), (512, 96)] {
        let linear = linear(in_dim, out_dim);
        for rows in ROWS {
            let x = x(rows, in_dim);
            let (expected, scale) = exact(&linear, &x);
            let y = tch::no_grad(|| linear.forward(&x)).unwrap();
            assert_within(&y, &expected, &scale.zeros_like(), &(&scale + 1.0), in_dim + 2);
        }
    }
}

#[test]
fn bf16_errs_by_what_the_rounding_of_the_weights_allows() {
    for (in_dim, out_dim) in [(1, 1), (67, 131), (512, 96)] {
        let linear = linear(in_dim, out_dim);
        let rounded = linear.quantized(WeightKind::Bf16).unwrap();
        for rows in ROWS {
            let x = x(rows, in_dim);
            let (expected, scale) = exact(&linear, &x);
            let bound = &scale * f64::from(2.0_f32.powi(-9));
            assert_within(
                &rounded.forward(&x).unwrap(),
                &expected,
                &bound,
                &(&scale + 1.0),
                in_dim + 2,
            );
        }
    }
}

#[test]
fn int8_errs_by_half_a_step_for_each_weight() {
    for (in_dim, out_dim) in [(1, 1), (67, 131), (512, 96)] {
        let linear = linear(in_dim, out_dim);
        let rounded = linear.quantized(WeightKind::Int8).unwrap();
        let weight = linear.trained_weight().unwrap().detach().to_kind(Kind::Double);
        let step = weight.abs().amax([1i64], false) / 127.0; // [out]
        for rows in ROWS {
            let x = x(rows, in_dim);
            let (expected, scale) = exact(&linear, &x);
            let sums = x.to_kind(Kind::Double).abs().sum_dim_intlist(1i64, true, Kind::Double);
            let bound = sums * &step * 0.5; // [rows, out]
            assert_within(
                &rounded.forward(&x).unwrap(),
                &expected,
                &bound,
                &(&scale + 1.0),
                in_dim + 2,
            );
        }
    }
}

#[test]
fn rows_of_zeros_and_tiny_weights_have_an_int8_form() -> TestResult {
    let vs = VarStore::new(Device::Cpu);
    let linear = Linear::new(&vs.root(), 4, 3, Bias::Without)?;
    let weights = [0.0_f32, 0.0, 0.0, 0.0, 1e-39, -1e-39, 0.0, 0.0, 1.0, -127.0, 63.5, 0.4];
    let weights = Tensor::from_slice(&weights).view([3, 4]);
    tch::no_grad(|| linear.trained_weight().unwrap().shallow_clone().copy_(&weights));
    let y = linear
        .quantized(WeightKind::Int8)?
        .forward(&Tensor::ones([1, 4], (Kind::Float, Device::Cpu)))?;
    // 63.5 is a tie and goes to the even 64, 0.4 goes to 0.
    assert_eq!(values(&y)[2], 1.0 - 127.0 + 64.0);
    assert_eq!(values(&y)[0], 0.0);
    assert!(values(&y)[1].abs() < 1e-37);
    Ok(())
}

#[test]
fn maps_of_one_x_computed_together_give_the_same_bits() -> TestResult {
    let maps = [linear(67, 30), linear(67, 200), linear(67, 1)];
    let refs: Vec<&Linear> = maps.iter().collect();
    for rows in ROWS {
        let x = x(rows, 67);
        let together = tch::no_grad(|| forward_all(&refs, &x))?;
        for (map, y) in maps.iter().zip(together) {
            let alone = tch::no_grad(|| map.forward(&x))?;
            assert_eq!(y.size(), alone.size());
            assert_eq!(values(&y), values(&alone), "{rows} rows");
        }
    }
    Ok(())
}

#[test]
fn any_shape_before_the_features_and_any_layout_will_do() -> TestResult {
    let linear = linear(12, 5);
    let x = tensor(&[12, 2, 3], Kind::Float, 9).permute([1, 2, 0]);
    let y = tch::no_grad(|| linear.forward(&x))?;
    assert_eq!(y.size(), [2, 3, 5]);
    let flat = tch::no_grad(|| linear.forward(&x.contiguous().view([6, 12])))?;
    assert_eq!(values(&y), values(&flat));
    let vector = tch::no_grad(|| linear.forward(&x.get(0).get(0)))?;
    assert_eq!(vector.size(), [5]);
    Ok(())
}

#[test]
fn gradients_are_recorded_for_few_rows_as_for_many() -> TestResult {
    let linear = linear(6, 4);
    let x = x(2, 6).set_requires_grad(true);
    linear.forward(&x)?.sum(Kind::Float).backward();
    assert!(linear.trained_weight().unwrap().grad().defined());
    assert!(x.grad().defined());
    // Through rounded weights the gradient goes on to x, in both ways of multiplying.
    let rounded = linear.quantized(WeightKind::Int8)?;
    for rows in [2, 20] {
        let x = tensor(&[rows, 6], Kind::Float, 5).set_requires_grad(true);
        rounded.forward(&x)?.sum(Kind::Float).backward();
        assert!(x.grad().defined());
    }
    Ok(())
}

#[test]
fn fewer_bits_are_fewer_bytes() -> TestResult {
    let linear = linear(100, 10);
    let bytes = |kind| -> Result<usize, NnError> { Ok(linear.quantized(kind)?.bytes()) };
    assert_eq!(linear.bytes(), 4000 + 40);
    assert_eq!(bytes(WeightKind::Bf16)?, 2000 + 40);
    assert_eq!(bytes(WeightKind::Int8)?, 1000 + 40 + 40);
    Ok(())
}

#[test]
fn weights_that_cannot_be_rounded_are_refused() -> TestResult {
    let rounded = linear(4, 4).quantized(WeightKind::Bf16)?;
    assert_eq!(rounded.weight_kind(), WeightKind::Bf16);
    assert!(rounded.trained_weight().is_none());
    let again = rounded.quantized(WeightKind::Int8).unwrap_err().to_string();
    assert!(again.contains("bf16 already"), "{again}");

    let mut vs = VarStore::new(Device::Cpu);
    let linear = Linear::new(&vs.root(), 4, 4, Bias::Without)?;
    let _ = tch::no_grad(|| linear.trained_weight().unwrap().get(1).fill_(f64::NAN));
    let refused = linear.quantized(WeightKind::Int8).unwrap_err().to_string();
    assert!(refused.contains("not finite"), "{refused}");
    vs.set_kind(Kind::Double);
    assert!(matches!(linear.quantized(WeightKind::Bf16), Err(NnError::Kind { .. })));
    assert!(linear.forward(&x(1, 5)).is_err(), "five features for four");
    assert!("int4".parse::<WeightKind>().unwrap_err().to_string().contains("f32, bf16, int8"));
    Ok(())
}
